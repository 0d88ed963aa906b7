"""Fit a learned position embedding to another patch grid."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Resize = Literal['timm', 'mae']


def resize_position_embedding(
    embedding: Tensor, target: Tensor, module: nn.Module, rule: Resize = 'timm'
) -> Tensor:
    """Interpolate a position embedding, (1, P+N, D), to the grid of the module that holds ``target``.

    The P prefix entries (class token, registers) are copied; the N others are a square grid and are resized
    bicubically. timm's ``resample_abs_pos_embed`` filters against aliasing and works in float32; the released MAE,
    DMAE and G2SD code does neither (its cubic has another coefficient, so the two differ when enlarging too).

    Args:
        embedding: of the file.
        target: the parameter to fill, (1, P+M, D).
        module: the network that holds it (timm or mmpretrain vision transformer).
        rule: ``timm`` or ``mae``.

    Returns:
        The resized embedding, or ``embedding`` itself when the rule does not apply: no square grid, another
        width, or a module whose grid is not known. The caller's shape check then raises.
    """
    from timm.layers import resample_abs_pos_embed

    holder = next((m for m in module.modules() if any(p is target for p in m._parameters.values())), None)
    grid = getattr(getattr(holder, 'patch_embed', None), 'grid_size', None) or getattr(
        holder, 'patch_resolution', None
    )
    if grid is None or embedding.ndim != 3 or embedding.shape[::2] != target.shape[::2]:
        return embedding
    prefix_count = target.shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(embedding.shape[1] - prefix_count, 0))
    if side == 0 or side * side + prefix_count != embedding.shape[1]:
        return embedding
    if rule == 'mae':
        return bicubic_position_embedding(embedding, (grid[0], grid[1]), prefix_count)
    return resample_abs_pos_embed(embedding, list(grid), num_prefix_tokens=prefix_count)


def bicubic_position_embedding(embedding: Tensor, grid: tuple[int, int], prefix: int = 1) -> Tensor:
    """Apply the rule ``mae``: (1, prefix + g*g, D) to (1, prefix + h*w, D) for a grid of (h, w)."""
    first, patches = embedding[:, :prefix], embedding[:, prefix:]
    side = math.isqrt(patches.shape[1])
    maps = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, grid, mode='bicubic', align_corners=False)
    return torch.cat([first, maps.flatten(2).transpose(1, 2)], dim=1)
