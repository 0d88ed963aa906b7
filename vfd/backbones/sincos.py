"""The fixed position table of masked autoencoders."""

from __future__ import annotations

import torch
from torch import Tensor

from vfd.errors import UserError


def sincos_position_table(embed_dim: int, grid: int | tuple[int, int], prefix: int = 1) -> Tensor:
    """Compute sines and cosines of a patch's column and row, as the released MAE files hold them.

    The row of patch k is ``[sin(col*w), cos(col*w), sin(row*w), cos(row*w)]`` with ``w_i = 10000^(-4i/embed_dim)``.
    mmpretrain's table has the halves for column and row swapped, so it does not fit these files.

    Args:
        embed_dim: width, divisible by 4.
        grid: patches along height and width.
        prefix: rows of zeros in front, for the class token.

    Returns:
        (1, prefix + h*w, embed_dim), float32, computed in float64.

    Raises:
        UserError: the width is not divisible by 4.
    """
    if embed_dim % 4:
        raise UserError(f'a sine-cosine position table needs a width divisible by 4, not {embed_dim}')
    height, width = (grid, grid) if isinstance(grid, int) else grid
    omega = 10000.0 ** -(torch.arange(embed_dim // 4, dtype=torch.float64) / (embed_dim / 4))
    place = torch.arange(height * width)
    angles = [
        torch.outer(axis.double(), omega) for axis in (place % width, place.div(width, rounding_mode='floor'))
    ]
    table = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([table.new_zeros(prefix, embed_dim), table]).unsqueeze(0).float()
