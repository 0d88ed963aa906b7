"""Masks and predicted images, shared by the methods with a masked autoencoder as student."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from vfd.errors import UserError
from vfd.losses.pixel import denormalise_patches, patchify, unpatchify

from .masked_autoencoder import MaskedAutoencoder
from .masking import PatchMask, check_mask_ratio, make_mask


def check_masked_student(method: str, student: Any, mask_ratio: float) -> None:
    """Raise unless a student is a masked autoencoder and a ratio hides some of its patches.

    Args:
        method: name for the message.
        student: the network.
        mask_ratio: share of hidden patches.

    Raises:
        UserError: it is another network, or the ratio hides no patch, or all.
    """
    if not isinstance(student, MaskedAutoencoder):
        raise UserError(
            f'{method}: the student has to be a vfd.MaskedAutoencoder, not {type(student).__name__}.'
        )
    check_mask_ratio(student.num_patches, mask_ratio)


def random_mask(method: str, student: MaskedAutoencoder, inputs: Tensor, mask_ratio: float) -> PatchMask:
    """Draw a fresh random mask for every image of a batch (arXiv 2111.06377, section 3).

    Args:
        method: name for the message.
        student: its grid of patches is masked.
        inputs: (B, 3, H, W).
        mask_ratio: share of hidden patches.

    Raises:
        UserError: the batch is no tensor.
    """
    if not isinstance(inputs, Tensor):
        raise UserError(
            f'{method}: a batch has to be one tensor (B, 3, H, W), but came as a {type(inputs).__name__}: set '
            "train_dataloader.collate_fn=dict(type='default_collate')."
        )
    return make_mask(torch.rand(len(inputs), student.num_patches, device=inputs.device), mask_ratio)


@torch.no_grad()
def predict_images(
    student: MaskedAutoencoder, inputs: Tensor, mask: PatchMask, norm_pix: bool
) -> list[BaseDataElement]:
    """Predict all patches of images from the visible ones.

    Args:
        student: with a pixel head.
        inputs: (B, 3, H, W), preprocessed.
        mask: of the batch.
        norm_pix: the network predicts normalised patches; every patch of the prediction then takes mean and deviation
            of the true one, which the network does not predict.

    Returns:
        For each image ``pred_image`` (3, H, W), normalised like the input, and ``mask`` (L,), 1 where hidden. Of
        several predictions side by side it is the first.
    """
    patch_size = student.patch_size
    pixels = student.reconstruct(inputs, mask)[..., : 3 * patch_size**2]
    if norm_pix:
        pixels = denormalise_patches(pixels, patchify(inputs, patch_size))
    images = unpatchify(pixels, patch_size, student.grid)
    return [
        BaseDataElement(pred_image=image, mask=hidden)
        for image, hidden in zip(images, mask.mask, strict=True)
    ]
