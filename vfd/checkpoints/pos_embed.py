"""Fit a learned position embedding to another patch grid."""

from __future__ import annotations

import math

from torch import Tensor, nn


def resize_position_embedding(embedding: Tensor, target: Tensor, module: nn.Module) -> Tensor:
    """Interpolate a position embedding, (1, P+N, D), to the grid of the module that owns ``target``.

    The rule is timm's ``resample_abs_pos_embed``: the P prefix entries (class token, registers) are copied;
    the N others are a square grid and are resized bicubically with antialiasing, in float32.

    Args:
        embedding: of the file.
        target: the parameter to fill, (1, P+M, D).
        module: the network that holds it (timm or mmpretrain vision transformer).

    Returns:
        The resized embedding, or ``embedding`` itself when the rule does not apply: no square grid, another
        width, or an owner whose grid is not known. The caller's shape check then speaks.
    """
    from timm.layers import resample_abs_pos_embed

    owner = next((m for m in module.modules() if getattr(m, 'pos_embed', None) is target), None)
    grid = getattr(getattr(owner, 'patch_embed', None), 'grid_size', None) or getattr(
        owner, 'patch_resolution', None
    )
    if grid is None or embedding.ndim != 3 or embedding.shape[::2] != target.shape[::2]:
        return embedding
    prefix_count = target.shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(embedding.shape[1] - prefix_count, 0))
    if side == 0 or side * side + prefix_count != embedding.shape[1]:
        return embedding
    return resample_abs_pos_embed(embedding, list(grid), num_prefix_tokens=prefix_count)
