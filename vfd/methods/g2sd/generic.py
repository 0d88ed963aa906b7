"""G2SD, generic stage: the small masked autoencoder predicts a decoder layer of the big one, for every patch.

Paper: "Generic-to-Specific Distillation of Masked Autoencoders", CVPR 2023, arXiv 2302.14771, section 3.2. In a
config::

    model = dict(
        type='vfd.G2SDGeneric',
        student=dict(
            type='vfd.MaskedAutoencoder', arch='small',
            decoder_embed_dim=256, decoder_depth=4, decoder_num_heads=8),
        teacher=dict(
            type='vfd.Teacher',
            source=dict(type='vfd.MAESource', arch='base'),
            checkpoint='checkpoints/mae_pretrain_vit_base_full.pth'),
        teacher_layer=4)
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfd.backbones import PatchMask, check_masked_student, random_mask
from vfd.backbones.masked_vit import xavier_linears
from vfd.backbones.partial_block import gather_tokens
from vfd.errors import UserError
from vfd.methods.base import Distiller, masked_baseline
from vfd.registry import MODELS
from vfd.teachers.patches import check_same_patches

_TARGET_EPS = 1e-6


class Predictor(nn.Module):
    """Linear, GELU, linear: from the student's decoder width to the teacher's."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, out_features)
        self.fc2 = nn.Linear(out_features, out_features)
        xavier_linears(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, in_features) to (B, N, out_features)."""
        return self.fc2(F.gelu(self.fc1(x)))


@MODELS.register_module()
class G2SDGeneric(Distiller):
    """Pre-trains a masked autoencoder on the hidden tokens of a bigger one's decoder.

    Args:
        student: config of a :class:`vfd.MaskedAutoencoder`; its pixel head is left out.
        teacher: config of a :class:`vfd.Teacher` with :class:`vfd.MAESource`. Its file has to hold the decoder. The
            tap is filled in.
        teacher_layer: how many decoder blocks of the teacher run before its tokens are the target; 4 as published.
        supervise: ``all`` tokens, the class token included (the released default), or the ``masked`` patches only.
        beta: where the smooth L1 distance turns from quadratic to linear.
        mask_ratio: share of hidden patches.
        data_preprocessor: config; makes the batches for both.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: settings that contradict each other, a teacher without decoder, grids that differ.
    """

    def __init__(
        self,
        student: dict,
        teacher: dict,
        teacher_layer: int = 4,
        supervise: Literal['all', 'masked'] = 'all',
        beta: float = 2.0,
        mask_ratio: float = 0.75,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if supervise not in ('all', 'masked'):
            raise UserError(f'G2SDGeneric: supervise={supervise!r}; one of "all", "masked"')
        if beta <= 0:
            raise UserError(f'G2SDGeneric: beta={beta} must be greater than 0')
        if teacher_layer < 1:
            raise UserError(f'G2SDGeneric: teacher_layer={teacher_layer} counts decoder blocks, from 1')
        self.tap = f'decoder.{teacher_layer - 1}'
        super().__init__(
            {**student, 'pixel_outputs': 0}, {**teacher, 'taps': (self.tap,)}, data_preprocessor, init_cfg
        )
        check_masked_student('G2SDGeneric', self.student, mask_ratio)
        check_same_patches('G2SDGeneric', self.student, self.teacher)
        width = self.teacher.source.channels(self.tap)
        self.predictor = Predictor(self.student.mask_token.shape[-1], width)
        self.mask_ratio = mask_ratio
        self.supervise = supervise
        self.beta = beta

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Compute the distance of the student's decoder tokens from the teacher's.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: not read.

        Returns:
            ``loss_generic``: a scalar.
        """
        mask = self.draw_mask(inputs)
        teacher_tokens = self.teacher(inputs, ids_keep=mask.ids_keep)[self.tap]  # (B, 1+L, Et)
        latent, _ = self.student.forward_tokens(inputs, mask.ids_keep)  # (B, 1+K, Ds)
        if self.supervise == 'all':
            tokens = self.student.decode(latent, mask.ids_keep)  # (B, 1+L, Es)
        else:
            tokens = self.student.decode_masked(latent, mask)  # (B, L-K, Es)
            teacher_tokens = gather_tokens(teacher_tokens, mask.ids_masked + 1)
        target = _target(teacher_tokens)
        predicted = self.predictor(tokens)
        return {'loss_generic': F.smooth_l1_loss(predicted.to(target.dtype), target, beta=self.beta)}

    def draw_mask(self, inputs: Tensor) -> PatchMask:
        """Draw a fresh random mask for every image of the batch."""
        return random_mask('G2SDGeneric', self.student, inputs, self.mask_ratio)

    @classmethod
    def baseline(cls, model: dict) -> dict:
        """Give the masked autoencoder that learns pixels, without a teacher."""
        return masked_baseline(model)

    @torch.no_grad()
    def compared(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return what the loss compares, for all patches under a fresh mask: for pictures.

        Returns:
            ``student`` and ``teacher``: (B, L, Et).
        """
        mask = self.draw_mask(inputs)
        teacher_tokens = self.teacher(inputs, ids_keep=mask.ids_keep)[self.tap]
        latent, _ = self.student.forward_tokens(inputs, mask.ids_keep)
        predicted = self.predictor(self.student.decode(latent, mask.ids_keep))
        return {'student': predicted[:, 1:], 'teacher': _target(teacher_tokens)[:, 1:]}


def _target(tokens: Tensor) -> Tensor:
    """Normalise decoder tokens (B, N, Et): every token gets mean 0 and variance 1."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=_TARGET_EPS)
