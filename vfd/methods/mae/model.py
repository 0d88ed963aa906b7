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

from mmengine.model import BaseModel
from torch import Tensor, nn

from vfd.backbones import MaskedPixels
from vfd.errors import UserError
from vfd.losses.pixel import pixel_loss, pixel_target
from vfd.registry import MODELS


class MaskedPixelLoss(MaskedPixels):
    """The pixel loss that both models of this method have."""

    def set_masking(self, mask_ratio: float, norm_pix: bool) -> None:
        """Take the two settings of the pixel loss.

        Raises:
            UserError: the ratio hides no patch, or all; the student has no pixel head.
        """
        self.set_mask_ratio(mask_ratio)
        if self.student.pixel_outputs != 1:
            raise UserError(
                f'{type(self).__name__}: the student has to predict the pixels of patches; take a '
                'vfd.MaskedAutoencoder with pixel_outputs=1, its default.'
            )
        self.norm_pix = norm_pix

    def masked_pixel_loss(self, inputs: Tensor) -> Tensor:
        """Hide patches of (B, 3, H, W) and compare their prediction with them (section 3): a scalar."""
        mask = self.draw_mask(inputs)
        latent, _ = self.student.forward_tokens(inputs, mask.ids_keep)  # (B, 1+K, D)
        predicted = self.student.pixels(self.student.decode_masked(latent, mask))  # (B, L-K, p*p*3)
        target = pixel_target(inputs, self.student.patch_size, self.norm_pix, mask.ids_masked)
        return pixel_loss(predicted, target)


@MODELS.register_module()
class MAE(MaskedPixelLoss, BaseModel):
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
