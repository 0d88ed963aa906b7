"""PH-Reg's teacher target as the paper tells it: shifted copies of the image, maps of indices, eager attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def views(image: Tensor, offsets: Tensor, flips: Tensor, patch: int, white: Tensor) -> tuple[Tensor, Tensor]:
    """Every view as pixels, and for each of its patches the row and column that it came from.

    Args:
        image: (3, R, R), normalised.
        offsets: (N, 2) in patches, vertical first.
        flips: (N,), whether the view is mirrored.
        patch: pixels of a patch.
        white: (3,), what empty pixels become.

    Returns:
        (N, 3, R, R), and (N, 2, P, P) with -1 where a patch is empty.
    """
    side = image.shape[-1]
    grid = side // patch
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing='ij')
    indices = torch.stack((rows, columns))
    pixels, places = [], []
    for (down, right), flip in zip(offsets.tolist(), flips.tolist(), strict=True):
        shifted = white[:, None, None].repeat(1, side, side)
        place = torch.full_like(indices, -1)
        for source, target, unit in ((image, shifted, patch), (indices, place, 1)):
            length = source.shape[-1]
            (to_y, from_y), (to_x, from_x) = (_overlap(step * unit, length) for step in (down, right))
            target[:, to_y, to_x] = source[:, from_y, from_x]
        pixels.append(shifted.flip(-1) if flip else shifted)
        places.append(place.flip(-1) if flip else place)
    return torch.stack(pixels), torch.stack(places)


def _overlap(shift: int, length: int) -> tuple[slice, slice]:
    """Places written and places read when out[i] = in[i + shift]."""
    begin, end = max(0, -shift), min(length, length - shift)
    return slice(begin, end), slice(begin + shift, end + shift)


def restore(features: Tensor, places: Tensor) -> Tensor:
    """The mean over views of (N, P, P, D), each patch at the place it came from: (P * P, D)."""
    number, grid, _, width = features.shape
    total = features.new_zeros(number, grid, grid, width)
    count = features.new_zeros(number, grid, grid, 1)
    for view in range(number):
        row, column = places[view]
        h, w = ((row >= 0) & (column >= 0)).nonzero(as_tuple=True)
        total[view, row[h, w], column[h, w]] = features[view, h, w]
        count[view, row[h, w], column[h, w]] = 1
    return (total.sum(0) / count.sum(0)).flatten(0, 1)


def eager(network: nn.Module) -> nn.Module:
    """The same network with attention that builds the whole matrix of scores."""
    for module in network.modules():
        if hasattr(module, 'fused_attn'):
            module.fused_attn = False
    return network
