"""What models with a masked autoencoder as ``student`` share: masks, and pictures of what they predict."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from vfd.errors import UserError
from vfd.losses.pixel import denormalise_patches, patchify, unpatchify

from .masked_autoencoder import MaskedAutoencoder
from .masking import PatchMask, check_mask_ratio, make_mask


class PatchMasking:
    """Random masks for a masked autoencoder; a mix-in of models, which have the network as ``student``."""

    student: MaskedAutoencoder
    mask_ratio: float

    def set_mask_ratio(self, mask_ratio: float) -> None:
        """Take the share of hidden patches.

        Raises:
            UserError: the student is no masked autoencoder, or the ratio hides no patch, or all.
        """
        if not isinstance(self.student, MaskedAutoencoder):
            raise UserError(
                f'{type(self).__name__}: the student has to be a vfd.MaskedAutoencoder, not '
                f'{type(self.student).__name__}.'
            )
        check_mask_ratio(self.student.num_patches, mask_ratio)
        self.mask_ratio = mask_ratio

    def draw_mask(self, inputs: Tensor) -> PatchMask:
        """A fresh random mask for every image of the batch.

        Raises:
            UserError: the batch is no tensor.
        """
        if not isinstance(inputs, Tensor):
            raise UserError(
                f'{type(self).__name__}: a batch has to be one tensor (B, 3, H, W), but came as a '
                f"{type(inputs).__name__}: set train_dataloader.collate_fn=dict(type='default_collate')."
            )
        noise = torch.rand(len(inputs), self.student.num_patches, device=inputs.device)
        return make_mask(noise, self.mask_ratio)


class MaskedPixels(PatchMasking):
    """Reconstructions of images; for students with a pixel head."""

    norm_pix: bool

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Any = None) -> list[BaseDataElement]:
        """Hide random patches and predict all.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: not read.

        Returns:
            For each image ``pred_image`` (3, H, W), normalised like the input, and ``mask`` (L,), 1 where hidden. With
            ``norm_pix`` every patch of the prediction takes mean and deviation of the true one, which the network does
            not predict. Of several predictions side by side it is the first.
        """
        mask = self.draw_mask(inputs)
        patch_size = self.student.patch_size
        pixels = self.student.reconstruct(inputs, mask)[..., : 3 * patch_size**2]
        if self.norm_pix:
            pixels = denormalise_patches(pixels, patchify(inputs, patch_size))
        images = unpatchify(pixels, patch_size, self.student.grid)
        return [
            BaseDataElement(pred_image=image, mask=hidden)
            for image, hidden in zip(images, mask.mask, strict=True)
        ]
