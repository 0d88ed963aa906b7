"""Pixels of patches as a regression target: masked autoencoders.

Paper: "Masked Autoencoders Are Scalable Vision Learners", 2021, arXiv 2111.06377, section 3. Inside a patch the order
of the values is row, column, channel; patches are counted row by row.
"""

from __future__ import annotations

import torch
from torch import Tensor

_NORM_EPS = 1e-6


def select_patches(images: Tensor, patch_size: int, index: Tensor) -> Tensor:
    """Copy some patches of every image without touching the others.

    Args:
        images: (B, C, H, W), sides divisible by ``patch_size``.
        patch_size: side p of a patch in pixels.
        index: (B, K) long, patches counted row by row.

    Returns:
        (B, K, C, p, p).
    """
    columns = images.shape[-1] // patch_size
    windows = images.unfold(2, patch_size, patch_size).unfold(
        3, patch_size, patch_size
    )  # a view (B,C,h,w,p,p)
    rows, places = index // columns, index % columns
    batch = torch.arange(len(images), device=images.device)[:, None]
    return windows.permute(0, 2, 3, 1, 4, 5)[batch, rows, places]


def patchify(images: Tensor, patch_size: int, index: Tensor | None = None) -> Tensor:
    """Cut images into patches and return their values.

    Args:
        images: (B, C, H, W).
        patch_size: side p of a patch in pixels.
        index: (B, K) patches to take; None takes all of them.

    Returns:
        (B, K or (H/p)*(W/p), p*p*C), in the order row, column, channel.
    """
    if index is not None:
        return select_patches(images, patch_size, index).permute(0, 1, 3, 4, 2).flatten(2)
    batch, channels, height, width = images.shape
    grid = images.reshape(batch, channels, height // patch_size, patch_size, width // patch_size, patch_size)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch_size * patch_size * channels)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Return the images whose `patchify` is ``patches``: (B, h*w, p*p*C) to (B, C, h*p, w*p)."""
    batch, (rows, columns) = len(patches), grid
    tiles = patches.reshape(batch, rows, columns, patch_size, patch_size, -1)
    return tiles.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * patch_size, columns * patch_size)


def normalise_patches(patches: Tensor) -> Tensor:
    """Normalise every patch to mean 0 and variance 1 over its values (section 3, "reconstruction target").

    The variance is the unbiased one, plus 1e-6.
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + _NORM_EPS).sqrt()


def denormalise_patches(patches: Tensor, true: Tensor) -> Tensor:
    """Undo `normalise_patches` with mean and variance of the ``true`` patches: (B, N, P) each."""
    variance, mean = torch.var_mean(true, dim=-1, keepdim=True)
    return patches * (variance + _NORM_EPS).sqrt() + mean


def pixel_target(
    images: Tensor, patch_size: int, norm_pix: bool = False, index: Tensor | None = None
) -> Tensor:
    """Compute the target of a masked autoencoder: `patchify`, normalised patch by patch if ``norm_pix``."""
    patches = patchify(images, patch_size, index)
    return normalise_patches(patches) if norm_pix else patches


def pixel_loss(pred: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the mean squared error of patches.

    Args:
        pred: (B, N, P).
        target: (B, N, P).
        mask: (B, N), 1 where a patch counts; None counts all. Images may count different numbers of patches: the mean
            is over the patches of the batch.

    Returns:
        A scalar. NaN if no patch counts.
    """
    errors = (pred - target).square().mean(dim=-1)
    return errors.mean() if mask is None else (errors * mask).sum() / mask.sum()
