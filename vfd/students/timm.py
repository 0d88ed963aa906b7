"""Taps of a network of timm, bare or inside mmpretrain's ``TimmClassifier``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .numbers import numbered


def timm_network(student: nn.Module) -> Any:
    """Return the network of timm inside a wrapper such as ``TimmClassifier``, or the network itself."""
    inner = getattr(student, 'model', None)
    return inner if isinstance(inner, nn.Module) and hasattr(inner, 'forward_features') else student


def is_timm(student: nn.Module) -> bool:
    """Return whether a network implements timm's protocol."""
    network = timm_network(student)
    return hasattr(network, 'forward_features') and hasattr(network, 'forward_head')


def timm_taps(student: nn.Module, inputs: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
    """See :func:`vfd.students.forward_taps`."""
    network = timm_network(student)
    if tuple(taps) == ('logits',):
        return {'logits': network(inputs)}
    name = type(network).__name__
    blocks = numbered(taps, 'block', len(getattr(network, 'blocks', ())), name)
    count = len(network.blocks) if blocks else _stage_count(network)
    stages = numbered(taps, 'stage', count, name)
    found: dict[str, Tensor] = {}
    if blocks or stages:
        indices = sorted({*blocks.values(), *stages.values()})
        prefixed = {'return_prefix_tokens': True} if blocks else {}
        features, maps = network.forward_intermediates(inputs, indices=indices, **prefixed)
        at = dict(zip(indices, maps, strict=True))
        found |= {tap: at[k][0] if blocks else at[k] for tap, k in stages.items()}
        found |= {tap: _tokens(*at[k]) for tap, k in blocks.items()}
    else:
        features = network.forward_features(inputs)
    if 'pooled' in taps:
        found['pooled'] = network.forward_head(features, pre_logits=True)
    if 'logits' in taps:
        found['logits'] = network.forward_head(features)
    return found


def _stage_count(network: Any) -> int:
    """Return how many maps ``forward_intermediates`` can output."""
    if hasattr(network, 'blocks') and hasattr(network, '_pos_embed'):
        return len(network.blocks)  # a plain transformer: one a block
    return len(network.feature_info)


def _tokens(map_: Tensor, prefix: Tensor) -> Tensor:
    """Join a map (B, D, H, W) and prefix tokens (B, P, D) into tokens (B, P + H*W, D)."""
    return torch.cat([prefix, map_.flatten(2).transpose(1, 2)], dim=1)
