"""Consistency of dense features when the image is shifted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vfd.errors import UserError


class ShiftConsistency(NamedTuple):
    """Similarity of the features of the same content in two crops; 1 is perfect.

    Attributes:
        cosine: mean cosine between the features of the same patch.
        centred_cosine: the same after the mean feature of each crop is taken off, which all its patches share.
        match: share of the patches whose nearest neighbour (by centred cosine) in the other crop is the same patch.
    """

    cosine: float
    centred_cosine: float
    match: float


@torch.no_grad()
def shift_consistency(
    dense: Callable[[Tensor], Tensor],
    images: Tensor,
    crop_size: int,
    patch_size: int,
    shifts: Sequence[tuple[int, int]] = ((0, 1), (1, 0), (2, 3), (4, 4)),
) -> ShiftConsistency:
    """Compare crops that show the same patches at other places [ours].

    The first crop lies at the upper left, each other one whole patches below and to the right of it. What both show is
    the same pixels; features that depend on the content alone are equal there, artifacts that depend on the place in
    the image are not.

    Args:
        dense: features of normalised images, (B, 3, S, S) to (B, T, D), patches row by row.
        images: (B, 3, H, W), normalised; H and W hold the crop and the largest shift.
        crop_size: S, a multiple of the patch size.
        patch_size: in pixels.
        shifts: down and right in patches, not negative, not both 0.

    Returns:
        Means over images, shifts and patches.

    Raises:
        UserError: the images are too small, or the shifts leave nothing in common.
    """
    side = crop_size // patch_size
    largest = crop_size + patch_size * max(max(shift) for shift in shifts)
    if crop_size % patch_size or any(not 0 <= min(s) <= max(s) < side or not any(s) for s in shifts):
        raise UserError(
            f'crop_size={crop_size}, shifts={list(shifts)}: the crop is a multiple of {patch_size} pixels, and shifts '
            f'are 0 to {side - 1} patches, not (0, 0)'
        )
    if min(images.shape[-2:]) < largest:
        raise UserError(
            f'images of {tuple(images.shape[-2:])} pixels; shifted crops of {crop_size} need {largest} on each side'
        )

    def maps(down: int, right: int) -> Tensor:
        """Compute the features (B, side, side, D) of the crop at a place in patches."""
        top, left = down * patch_size, right * patch_size
        crop = images[:, :, top : top + crop_size, left : left + crop_size]
        return dense(crop).float().unflatten(1, (side, side))

    first = maps(0, 0)
    rows = []
    for down, right in shifts:
        here = first[:, down:, right:].flatten(1, 2)  # (B, n, D)
        other = maps(down, right)
        there = other[:, : side - down, : side - right].flatten(1, 2)
        cosine = F.cosine_similarity(here, there, dim=-1)
        here = F.normalize(here - first.mean((1, 2))[:, None], dim=-1)
        there = F.normalize(there - other.mean((1, 2))[:, None], dim=-1)
        alike = here @ there.mT  # (B, n, n)
        same = torch.arange(alike.shape[-1], device=alike.device)
        rows.append(
            torch.stack(
                [
                    cosine.mean(),
                    alike.diagonal(dim1=1, dim2=2).mean(),
                    (alike.argmax(-1) == same).float().mean(),
                ]
            )
        )
    return ShiftConsistency(*torch.stack(rows).mean(0).tolist())
