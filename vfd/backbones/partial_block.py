"""A transformer block whose output is computed for some tokens only."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Return the tokens (B, N, D) at ``index`` (B, Q): (B, Q, D)."""
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[-1]))


def block_at(block: Any, tokens: Tensor, index: Tensor) -> Tensor:
    """Compute the entries of ``block(tokens)`` at ``index``, at the cost of those tokens.

    Keys and values come from all tokens; queries, projection and MLP from the selected ones. Equal to the whole block
    up to rounding.

    Args:
        block: timm's ``Block`` with its ``Attention``.
        tokens: (B, N, D).
        index: (B, Q) long.

    Returns:
        (B, Q, D).
    """
    attn = block.attn
    selected = gather_tokens(tokens, index)
    width = attn.attn_dim
    weight, bias = attn.qkv.weight, attn.qkv.bias
    query_bias, rest_bias = (None, None) if bias is None else (bias[:width], bias[width:])
    # The norm works token by token, so it commutes with the selection.
    query = F.linear(block.norm1(selected), weight[:width], query_bias)
    key, value = F.linear(block.norm1(tokens), weight[width:], rest_bias).chunk(2, dim=-1)
    query, key, value = (
        x.unflatten(-1, (attn.num_heads, attn.head_dim)).transpose(1, 2) for x in (query, key, value)
    )
    dropout = attn.attn_drop.p if attn.training else 0.0
    mixed = F.scaled_dot_product_attention(attn.q_norm(query), attn.k_norm(key), value, dropout_p=dropout)
    mixed = attn.proj_drop(attn.proj(attn.norm(mixed.transpose(1, 2).flatten(2))))
    selected = selected + block.drop_path1(block.ls1(mixed))
    return selected + block.drop_path2(block.ls2(block.mlp(block.norm2(selected))))
