"""Self-distillation for further pre-training: a masked autoencoder adapts to new images without over-fitting them.

Paper: "Self-Distillation for Further Pre-training of Transformers", ICLR 2023, arXiv 2210.02871. Stage 1 goes on with
MAE on the new images; its encoder is the teacher. Stage 2, this model, starts again from the *original* weights and
pulls the network's features of whole images to the teacher's. In a config::

    model = dict(
        type='vfd.SelfDistillMAE',
        student=dict(
            type='vfd.MaskedAutoencoder',
            arch='base',
            checkpoint='checkpoints/mae_pretrain_vit_base_full.pth'),
        teacher=dict(
            type='vfd.Teacher',
            source=dict(type='vfd.MAESource', arch='base'),
            checkpoint='work_dirs/<stage 1>/iter_20000.pth'))
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement
from timm.layers import DropPath
from torch import Tensor, nn

from vfd.backbones import PatchMask, predict_images, random_mask
from vfd.errors import UserError, did_you_mean
from vfd.methods.base import Distiller, masked_baseline
from vfd.registry import MODELS

from .model import check_pixel_student, masked_pixel_loss

Target = Literal['cls', 'all']
Reduction = Literal['sum', 'mean']
TAPS: dict[Target, str] = {'cls': 'cls', 'all': 'latent'}  # of the teacher

THUMBNAIL = 'thumbnail'  # what a store holds of each image beside the teacher's features
_THUMBNAIL_SIDE = 4
_CHECKED_BATCHES = 10  # in which stored features are compared with the images
_EQUAL = 1e-10  # squared distance over squared length: far below any training, far above rounding


@MODELS.register_module()
class SelfDistillMAE(Distiller):
    """Pre-trains a masked autoencoder further, under a teacher that was pre-trained further before.

    Args:
        student: config of a :class:`vfd.MaskedAutoencoder`; its ``checkpoint`` holds the weights that stage 1 started
            from, encoder and decoder.
        teacher: config of a :class:`vfd.Teacher` with :class:`vfd.MAESource` and the checkpoint of stage 1 (or of the
            round before), or of a :class:`vfd.StoredTeacher` whose store :class:`TeacherCacheHook` wrote. The taps are
            filled in.
        target: ``cls`` compares the class token after the final norm, as published; ``all`` compares all tokens.
        reduction: ``sum`` is the squared distance of an image, averaged over the batch, as published; ``mean`` averages
            over channels and tokens too.
        loss_weight: of the distance; 1 as published.
        mask_ratio: share of hidden patches in the pixel loss.
        norm_pix: normalise the pixels of every target patch.
        data_preprocessor: config; makes the batches for both.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: settings that contradict each other, a student with drop path or without pixel head.
    """

    inference_settings: ClassVar[dict[str, Any]] = {'target': 'all'}  # the teacher outputs every patch

    def __init__(
        self,
        student: dict,
        teacher: dict,
        target: Target = 'cls',
        reduction: Reduction = 'sum',
        loss_weight: float = 1.0,
        mask_ratio: float = 0.75,
        norm_pix: bool = True,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        for name, value, choices in (('target', target, TAPS), ('reduction', reduction, ('sum', 'mean'))):
            if value not in choices:
                hint = did_you_mean(str(value), choices)
                raise UserError(f'SelfDistillMAE: {name}={value!r}{hint}; one of {", ".join(choices)}')
        stored = str(teacher.get('type')).endswith('StoredTeacher')
        self._taps = (TAPS[target], THUMBNAIL) if stored else (TAPS[target],)
        super().__init__(student, {**teacher, 'taps': self._taps}, data_preprocessor, init_cfg)
        check_pixel_student('SelfDistillMAE', self.student, mask_ratio)
        self.mask_ratio = mask_ratio
        self.norm_pix = norm_pix
        self._refuse_noise()
        self.target: Target = target
        self.reduction: Reduction = reduction
        self.loss_weight = loss_weight
        self._seen = 0  # training batches of this process

    def loss(self, inputs: Tensor, data_samples: list | None = None) -> dict[str, Tensor]:
        """Compute the pixel loss of the hidden patches, and the distance to the teacher on whole images.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: B samples; a stored teacher finds its records by their ``img_path``.

        Returns:
            ``loss_mae`` and ``loss_distill``: scalars.

        Raises:
            UserError: the teacher is of another shape; in the first batches: student and teacher are the same network,
                or stored features are of other pixels than these.
        """
        loss_mae = masked_pixel_loss(self.student, inputs, self.draw_mask(inputs), self.norm_pix)
        teacher_outputs = self.teacher(inputs, data_samples=data_samples)
        target = teacher_outputs[TAPS[self.target]]  # (B, D), or (B, 1+L, D) for all tokens
        student_tokens = self.student.forward_cls(inputs) if self.target == 'cls' else self.student(inputs)
        if student_tokens.shape != target.shape:
            raise UserError(
                f'SelfDistillMAE: the student outputs {tuple(student_tokens.shape[1:])} an image, the teacher '
                f'{tuple(target.shape[1:])}. Stages 1 and 2 are the same network: give both the same arch, '
                'img_size and patch_size.'
            )
        if self.training:
            self._check_first(inputs, student_tokens, teacher_outputs)
        return {
            'loss_mae': loss_mae,
            'loss_distill': self.loss_weight * distance(student_tokens, target, self.reduction),
        }

    def draw_mask(self, inputs: Tensor) -> PatchMask:
        """Draw a fresh random mask for every image of the batch."""
        return random_mask('SelfDistillMAE', self.student, inputs, self.mask_ratio)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list[BaseDataElement]:
        """Hide random patches and predict all, see :func:`vfd.backbones.predict_images`."""
        return predict_images(self.student, inputs, self.draw_mask(inputs), self.norm_pix)

    @classmethod
    def baseline(cls, model: dict) -> dict:
        """Give the masked autoencoder that goes on with pixels alone."""
        return masked_baseline(model, norm_pix=model.get('norm_pix', True))

    def _refuse_noise(self) -> None:
        """Refuse drop path: both branches of stage 2 are deterministic as published."""
        if any(isinstance(part, DropPath) and part.drop_prob for part in self.student.modules()):
            raise UserError(
                'SelfDistillMAE: the student has drop_path_rate > 0, and would be pulled to the teacher with some '
                'of its blocks left out. Leave drop_path_rate to the fine-tuning.'
            )

    def compared(self, inputs: Tensor) -> dict[str, Tensor]:
        """Give the patch tokens (B, L, D) of ``student`` and ``teacher`` for whole images; needs the target ``all``."""
        return {
            'student': self.student(inputs)[:, 1:],
            'teacher': self.teacher(inputs)[TAPS['all']][:, 1:],
        }

    def _check_first(
        self, inputs: Tensor, student_tokens: Tensor, teacher_outputs: dict[str, Tensor]
    ) -> None:
        """Check the first batches for mistakes that training would hide; later batches wait for no comparison."""
        if self._seen == 0:
            target = teacher_outputs[TAPS[self.target]]
            apart = (student_tokens.detach() - target).square().sum() / target.square().sum()
            if apart < _EQUAL:
                raise UserError(
                    'SelfDistillMAE: student and teacher output the same, so the teacher holds back nothing. The '
                    'student has to start from the weights that the teacher itself started from (student.checkpoint), '
                    "not from the teacher's own; load_from would replace them."
                )
        if THUMBNAIL in teacher_outputs and self._seen < _CHECKED_BATCHES:
            same = torch.isclose(thumbnails(inputs).float(), teacher_outputs[THUMBNAIL], atol=1e-3).all()
            if not same:
                raise UserError(
                    'SelfDistillMAE: the stored features are of other pixels than these. They hold only while an image '
                    'looks the same every time: take random transforms (crop, flip, colour) out of train_pipeline, or '
                    'use a live vfd.Teacher. If the preparation of the images was changed, make the store again.'
                )
        self._seen += 1


def distance(student: Tensor, teacher: Tensor, reduction: Reduction = 'sum') -> Tensor:
    """Compute the squared L2 distance of hidden representations, reduced as the released code does.

    Args:
        student: (B, ..., D).
        teacher: the same shape; gets no gradient.
        reduction: ``sum`` over everything but the batch, whose mean is taken, or the ``mean`` of all.

    Returns:
        A scalar, computed in at least float32.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    squared = (student.to(dtype) - teacher.detach().to(dtype)).square()
    return squared.sum() / len(squared) if reduction == 'sum' else squared.mean()


def thumbnails(images: Tensor) -> Tensor:
    """Reduce images (B, 3, H, W) to (B, 3, 4, 4): enough to check that stored features are of these pixels."""
    return F.adaptive_avg_pool2d(images, _THUMBNAIL_SIDE)
