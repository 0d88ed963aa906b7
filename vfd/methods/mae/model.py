"""MAE: a network learns images by filling in the patches that it does not see.

Paper: "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv 2111.06377. Pre-training from scratch, and
the first stage of further pre-training: the same on other images, from released weights. In a config::

    model = dict(
        type='vfd.MAE',
        student=dict(
            type='vfd.MaskedAutoencoder',
            arch='base',
            checkpoint='checkpoints/mae_pretrain_vit_base_full.pth'))
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from vfd.backbones import MaskedAutoencoder, PatchMask, check_mask_ratio, make_mask
from vfd.errors import UserError
from vfd.losses.pixel import patchify, pixel_loss, pixel_target, unpatchify
from vfd.registry import MODELS


class MaskedPixels:
    """What models with a masked autoencoder as ``student`` share: masks, the pixel loss, reconstructions."""

    student: MaskedAutoencoder
    mask_ratio: float
    norm_pix: bool

    def set_masking(self, mask_ratio: float, norm_pix: bool) -> None:
        """Take the two settings of the pixel loss.

        Raises:
            UserError: the ratio hides no patch, or all; the student has no pixel head.
        """
        name = type(self).__name__
        if not isinstance(self.student, MaskedAutoencoder) or self.student.pixel_outputs != 1:
            raise UserError(
                f'{name}: the student has to predict the pixels of patches; take a vfd.MaskedAutoencoder with '
                'pixel_outputs=1, its default.'
            )
        check_mask_ratio(self.student.num_patches, mask_ratio)
        self.mask_ratio = mask_ratio
        self.norm_pix = norm_pix

    def draw_mask(self, inputs: Tensor) -> PatchMask:
        """A fresh random mask for every image of the batch."""
        noise = torch.rand(len(inputs), self.student.num_patches, device=inputs.device)
        return make_mask(noise, self.mask_ratio)

    def masked_pixel_loss(self, inputs: Tensor) -> Tensor:
        """Hide patches of (B, 3, H, W) and compare their prediction with them (section 3): a scalar."""
        mask = self.draw_mask(inputs)
        latent, _ = self.student.forward_tokens(inputs, mask.ids_keep)  # (B, 1+K, D)
        predicted = self.student.pixels(self.student.decode_masked(latent, mask))  # (B, L-K, p*p*3)
        target = pixel_target(inputs, self.student.patch_size, self.norm_pix, mask.ids_masked)
        return pixel_loss(predicted, target)

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> list[BaseDataElement]:
        """Hide random patches and predict all.

        Args:
            inputs: (B, 3, H, W), preprocessed.

        Returns:
            For each image ``pred_image`` (3, H, W), normalised like the input, and ``mask`` (L,), 1 where hidden. With
            ``norm_pix`` every patch of the prediction takes mean and deviation of the true one, which the network does
            not predict.
        """
        mask = self.draw_mask(inputs)
        patch_size = self.student.patch_size
        pixels = self.student.reconstruct(inputs, mask)
        if self.norm_pix:
            variance, mean = torch.var_mean(patchify(inputs, patch_size), dim=-1, keepdim=True)
            pixels = pixels * (variance + 1e-6).sqrt() + mean
        images = unpatchify(pixels, patch_size, self.student.grid)
        return [
            BaseDataElement(pred_image=image, mask=hidden)
            for image, hidden in zip(images, mask.mask, strict=True)
        ]


@MODELS.register_module()
class MAE(MaskedPixels, BaseModel):
    """Pre-trains a masked autoencoder on pixels.

    The network is called ``student`` although it has no teacher: its checkpoints then read like those of every method
    here, as a teacher, for fine-tuning and for the export.

    Args:
        student: config of a :class:`vfd.MaskedAutoencoder`; its ``checkpoint`` is where further pre-training starts.
        mask_ratio: share of hidden patches.
        norm_pix: normalise the pixels of every target patch, as published for the released weights.
        data_preprocessor: config; makes the batches.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: a mask ratio that hides no patch or all, or a student without pixel head.
    """

    def __init__(
        self,
        student: dict,
        mask_ratio: float = 0.75,
        norm_pix: bool = True,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.student = MODELS.build(student)
        self.set_masking(mask_ratio, norm_pix)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor') -> Any:
        """One batch of (B, 3, H, W).

        ``loss``: ``loss_mae``, a scalar; ``tensor``: tokens (B, 1+L, D) of whole images; ``predict``: reconstructions.
        ``data_samples`` are not read.
        """
        if mode == 'loss':
            return {'loss_mae': self.masked_pixel_loss(inputs)}
        return self.predict(inputs) if mode == 'predict' else self.student(inputs)
