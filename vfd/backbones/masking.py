"""The visible patches of a masked autoencoder (arXiv 2111.06377, section 3, "masking")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vfd.errors import UserError


@dataclass(frozen=True)
class PatchMask:
    """A split of the patches of each image.

    Attributes:
        ids_keep: (B, K) long, visible patches, in shuffled order.
        ids_masked: (B, L-K) long, hidden patches, in shuffled order.
    """

    ids_keep: Tensor
    ids_masked: Tensor

    @property
    def ids_restore(self) -> Tensor:
        """(B, L): the place of every patch in the shuffled order, visible ones first."""
        return torch.cat([self.ids_keep, self.ids_masked], dim=1).argsort(dim=1)

    @property
    def mask(self) -> Tensor:
        """(B, L) float: 0 where a patch is visible, 1 where it is hidden."""
        return (self.ids_restore >= self.ids_keep.shape[1]).float()


def keep_count(num_patches: int, mask_ratio: float) -> int:
    """Return how many patches stay visible: the float product, cut off (100 patches at 0.9 leave 9, as published)."""
    return int(num_patches * (1 - mask_ratio))


def check_mask_ratio(num_patches: int, mask_ratio: float) -> None:
    """Raise unless some patches are visible and some are hidden.

    Raises:
        UserError: with what the ratio leaves and the range that works.
    """
    if not 0 <= mask_ratio < 1:
        raise UserError(f'mask_ratio={mask_ratio}: expected a number from 0 up to, but not including, 1.')
    kept = keep_count(num_patches, mask_ratio)
    if kept == 0:
        raise UserError(
            f'mask_ratio={mask_ratio} leaves none of the {num_patches} patches visible. Take at most '
            f'{1 - 1.5 / num_patches:.4f}, a larger image, or smaller patches.'
        )
    if kept == num_patches:
        raise UserError(
            f'mask_ratio={mask_ratio} hides none of the {num_patches} patches, so there is nothing to predict. Take '
            'a larger one.'
        )


def make_mask(noise: Tensor, mask_ratio: float) -> PatchMask:
    """Hide the patches with the largest noise.

    Args:
        noise: (B, L), uniform in [0, 1).
        mask_ratio: share of the patches to hide.

    Returns:
        The split; ``int(L * (1 - mask_ratio))`` patches are visible.
    """
    order = noise.argsort(dim=1)
    kept = keep_count(noise.shape[1], mask_ratio)
    return PatchMask(order[:, :kept], order[:, kept:])
