"""MAE: a network predicts the hidden patches of images.

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

from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from vfd.backbones import MaskedAutoencoder, PatchMask, check_masked_student, predict_images, random_mask
from vfd.errors import UserError
from vfd.losses.pixel import pixel_loss, pixel_target
from vfd.methods.base import Method
from vfd.registry import MODELS


def check_pixel_student(method: str, student: Any, mask_ratio: float) -> None:
    """Raise unless a student predicts pixels, and a ratio hides some of its patches.

    Raises:
        UserError: the ratio hides no patch, or all; the student has no pixel head.
    """
    check_masked_student(method, student, mask_ratio)
    if student.pixel_outputs != 1:
        raise UserError(
            f'{method}: the student has to predict the pixels of patches; take a vfd.MaskedAutoencoder with '
            'pixel_outputs=1, its default.'
        )


def masked_pixel_loss(student: MaskedAutoencoder, inputs: Tensor, mask: PatchMask, norm_pix: bool) -> Tensor:
    """Compare the prediction of the hidden patches of (B, 3, H, W) with them (section 3): a scalar."""
    latent, _ = student.forward_tokens(inputs, mask.ids_keep)  # (B, 1+K, D)
    predicted = student.pixels(student.decode_masked(latent, mask))  # (B, L-K, p*p*3)
    target = pixel_target(inputs, student.patch_size, norm_pix, mask.ids_masked)
    return pixel_loss(predicted, target)


@MODELS.register_module()
class MAE(Method):
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
        super().__init__(student, data_preprocessor, init_cfg)
        check_pixel_student('MAE', self.student, mask_ratio)
        self.mask_ratio = mask_ratio
        self.norm_pix = norm_pix

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Predict the hidden patches of (B, 3, H, W): ``loss_mae``, a scalar; ``data_samples`` are not read."""
        return {'loss_mae': masked_pixel_loss(self.student, inputs, self.draw_mask(inputs), self.norm_pix)}

    def draw_mask(self, inputs: Tensor) -> PatchMask:
        """Draw a fresh random mask for every image of the batch."""
        return random_mask('MAE', self.student, inputs, self.mask_ratio)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list[BaseDataElement]:
        """Hide random patches and predict all, see :func:`vfd.backbones.predict_images`."""
        return predict_images(self.student, inputs, self.draw_mask(inputs), self.norm_pix)

    @classmethod
    def baseline(cls, model: dict) -> dict:
        """Refuse: this is the run without teacher that distillers of masked autoencoders are compared with."""
        raise UserError('MAE has no teacher, so there is no run without it to compare with: drop --baseline')
