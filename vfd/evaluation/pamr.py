"""Pixel-adaptive mask refinement: class maps are smoothed where the image is.

Idea: Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020, arXiv 2005.08104, section
3.2: a map is replaced, several times, by the mean of its neighbours weighted by how alike their colours are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_SHARPNESS = 0.1
_EPS = 1e-8


def refine(images: Tensor, maps: Tensor, steps: int, dilations: Sequence[int] = (8, 16)) -> Tensor:
    """Replace every map by the mean over like-coloured neighbours, ``steps`` times.

    The neighbours are the eight around a pixel at every dilation, beyond the border the border itself. A neighbour
    weighs ``softmax(mean_c -|x - x_n| / (0.1 std))``, with the standard deviation of the channel over the neighbours
    and the pixel [ours: the constant and the mean over channels; the paper leaves both open to the implementation].

    Args:
        images: (B, 3, H, W), with any normalisation.
        maps: (B, C, H, W): scores of classes.
        steps: 0 gives the maps back.
        dilations: distances in pixels.

    Returns:
        (B, C, H, W).
    """
    if steps == 0:
        return maps
    around = torch.stack(list(_neighbours(images, dilations)))  # (8 D, B, 3, H, W)
    spread = torch.cat([around, images[None]]).std(0, correction=0)
    weights = (-(around - images).abs() / (_SHARPNESS * spread + _EPS)).mean(2).softmax(0)  # (8 D, B, H, W)
    for _ in range(steps):
        # One neighbour at a time: sixteen copies of all class maps would not fit.
        shifted = zip(weights, _neighbours(maps, dilations), strict=True)
        refined = torch.zeros_like(maps)
        for weight, neighbour in shifted:
            refined += weight[:, None] * neighbour
        maps = refined
    return maps


def _neighbours(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Move every map to each of its eight neighbours at each distance."""
    height, width = maps.shape[-2:]
    for distance in dilations:
        padded = F.pad(maps, (distance,) * 4, mode='replicate')
        for row in (0, distance, 2 * distance):
            for column in (0, distance, 2 * distance):
                if (row, column) != (distance, distance):
                    yield padded[..., row : row + height, column : column + width]
