"""G2SD, specific stage for classification: fine-tuning under labels and under a fine-tuned teacher.

Paper: "Generic-to-Specific Distillation of Masked Autoencoders", CVPR 2023, arXiv 2302.14771. The student gets a
distillation token whose head learns the teacher's class, as in DeiT; at test time both heads are averaged. In a
config::

    model = dict(
        type='vfd.G2SDClassifier',
        student=dict(
            type='vfd.ViTClassifier', model_name='vit_small_patch16_224_dist_token',
            checkpoint='work_dirs/g2sd_.../epoch_300.pth'),
        teacher=dict(
            type='vfd.Teacher',
            source=dict(
                type='vfd.TimmSource', model_name='vit_base_patch16_224.mae', global_pool='avg', num_classes=1000),
            checkpoint='checkpoints/mae_finetuned_vit_base.pth'))
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfd.backbones.dist_token_vit import DistTokenViT
from vfd.errors import UserError
from vfd.losses import NKDLoss
from vfd.methods.base import Distiller
from vfd.registry import MODELS
from vfd.students import check_same_classes, labels_of
from vfd.teachers import StoredTeacher

MODELS.register_module(module=NKDLoss)

LABEL_SMOOTHING = 0.1


@MODELS.register_module()
class G2SDClassifier(Distiller):
    """Trains a pre-trained ``student`` on labels and on the class that ``teacher`` predicts for the same mixed image.

    Without ``distill_loss``, hard distillation through the token, as published::

        loss = 0.5 * (CE(logits, labels) + CE(token's logits, argmax of the teacher))

    With it, a student without the token, and that loss alone, which reads the labels too.

    Args:
        student: config of a :class:`vfd.ViTClassifier`; for hard distillation of a ``..._dist_token`` network.
        teacher: config of a :class:`vfd.Teacher` with as many classes. It runs on the mixed images, so a stored
            teacher does not fit.
        distill_loss: config of :class:`vfd.NKDLoss`; None distils through the token.
        label_smoothing: of the labels (the published mixing smooths its targets equally); None is 0.1, as published.
            Not for ``distill_loss``, which reads no more than the label's class.
        data_preprocessor: config; mixes the batches for both.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: the student has no token where one is needed (or the other way round), class counts differ, or
            settings contradict each other.
    """

    def __init__(
        self,
        student: dict,
        teacher: dict,
        distill_loss: dict | None = None,
        label_smoothing: float | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if distill_loss is not None and label_smoothing is not None:
            raise UserError(
                'G2SDClassifier: label_smoothing does nothing beside distill_loss, which reads the class of a label '
                'alone: remove one of them.'
            )
        super().__init__(student, {'taps': ('logits',), **teacher}, data_preprocessor, init_cfg)
        self.distill_loss = None if distill_loss is None else MODELS.build(distill_loss)
        self.label_smoothing = LABEL_SMOOTHING if label_smoothing is None else label_smoothing
        self._check_student()
        self._check_teacher()

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Compute the losses of one batch.

        Args:
            inputs: (B, 3, H, W), preprocessed and mixed.
            data_samples: B samples with a label, or with scores (C,) where images were mixed.

        Returns:
            ``loss_gt`` and ``loss_distill``, each with its weight of one half; ``loss_nkd`` where that is chosen.
        """
        label = labels_of('G2SDClassifier', data_samples)
        teacher = self.teacher(inputs)['logits']  # (B, C), no gradient
        if self.distill_loss is not None:
            return {'loss_nkd': self.distill_loss(self.student(inputs, mode='tensor'), teacher, label)}
        logits, token_logits = map(_full_precision, self.student.model.forward_heads(inputs))
        if label.is_floating_point():
            label = label.to(logits.dtype)
        return {
            'loss_gt': 0.5 * F.cross_entropy(logits, label, label_smoothing=self.label_smoothing),
            'loss_distill': 0.5 * F.cross_entropy(token_logits, teacher.argmax(1)),
        }

    def _check_student(self) -> None:
        network: Any = getattr(self.student, 'model', None)
        has_token = isinstance(network, DistTokenViT)
        if self.distill_loss is None and not has_token:
            raise UserError(
                'G2SDClassifier: the student has no distillation token. Take model_name="vit_small_patch16_224_'
                'dist_token" (tiny, small, base), or distill_loss=dict(type="vfd.NKDLoss"), which needs no token.'
            )
        if self.distill_loss is not None and has_token:
            raise UserError(
                'G2SDClassifier: with distill_loss nothing would train the distillation token. Take the network '
                'without it: leave "_dist_token" out of model_name.'
            )

    def _check_teacher(self) -> None:
        check_same_classes('G2SDClassifier', self.student, self.teacher)
        if isinstance(self.teacher, StoredTeacher):
            raise UserError(
                'G2SDClassifier: a stored teacher has features of whole images, not of the mixed crops: use '
                'vfd.Teacher.'
            )


def _full_precision(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
