"""Knowledge distillation: a classifier trained with labels and with the logits of a teacher.

Papers: "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531; with ``standardize=True`` "Logit
Standardization in Knowledge Distillation", CVPR 2024, arXiv 2403.01427; with ``decoupled`` "Decoupled Knowledge
Distillation", CVPR 2022, arXiv 2203.08679. The loss of a batch is::

    ce_weight CE(z_s, labels) + kd_weight KD(z_s, z_t)

In a config::

    model = dict(
        type='vfd.KD',
        student=dict(type='mmpretrain.TimmClassifier', model_name='cifar_resnet20', num_classes=100),
        teacher=dict(
            type='vfd.Teacher',
            source=dict(type='vfd.TimmSource', model_name='cifar_resnet56', num_classes=100),
            checkpoint='checkpoints/resnet56_cifar100.pth'),
        ce_weight=0.1, kd_weight=9.0, temperature=2.0, standardize=True)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.logging import MessageHub
from torch import Tensor, nn

from vfd.errors import UserError, did_you_mean
from vfd.losses import DKDLoss, KLDivLogitLoss
from vfd.losses.logit_kl import EPS
from vfd.methods.base import Distiller
from vfd.registry import MODELS
from vfd.students import check_same_classes, classifier_loss, forward_taps, labels_of

MODELS.register_module(module=KLDivLogitLoss)  # for methods whose loss is a config, such as SSLD

DECOUPLED = {'alpha': 1.0, 'beta': 8.0, 'warmup_epochs': 20}


@MODELS.register_module()
class KD(Distiller):
    """Train ``student`` on labels and on the teacher's logits.

    Args:
        student: config of a classifier whose ``tensor`` mode gives logits: mmpretrain's ``TimmClassifier`` or
            ``ImageClassifier``.
        teacher: config of a :class:`vfd.Teacher` or :class:`vfd.StoredTeacher` with as many classes.
        ce_weight: of the labels, which the student's own classification loss compares; 0 leaves them out.
        kd_weight: of the teacher's logits. 0.9 is usual for plain logits; 9 for standardised ones, whose loss is small.
        temperature: of both softmaxes; 4 is usual for plain logits, 2 for standardised ones.
        standardize: subtract the mean over the classes and divide by their standard deviation, for every sample of
            student and teacher. The labels are compared with the student's logits as they are.
        unbiased: of that standard deviation, see :class:`vfd.losses.KLDivLogitLoss`.
        eps: added to it.
        allow_binary: standardise two classes too, although nothing but the order of their logits is left.
        decoupled: for DKD ``dict(alpha=1.0, beta=8.0, warmup_epochs=20)`` or a part of it: alpha weighs the labelled
            class against the rest, beta the rest among themselves; the term grows linearly over the first epochs.
            None compares all classes at once.
        data_preprocessor: config; makes the batches for both.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: class counts that differ, no term at all, values out of range.
    """

    def __init__(
        self,
        student: dict,
        teacher: dict,
        ce_weight: float = 0.1,
        kd_weight: float = 0.9,
        temperature: float = 4.0,
        standardize: bool = False,
        unbiased: bool = True,
        eps: float = EPS,
        allow_binary: bool = False,
        decoupled: Mapping[str, Any] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if not (ce_weight or kd_weight):
            raise UserError('KD: ce_weight and kd_weight are both 0, there is nothing to train on')
        super().__init__(student, {**teacher, 'taps': ['logits']}, data_preprocessor, init_cfg)
        self.ce_weight, self.kd_weight = ce_weight, kd_weight
        settings: dict[str, Any] = dict(
            temperature=temperature,
            standardize=standardize,
            unbiased=unbiased,
            eps=eps,
            allow_binary=allow_binary,
        )
        self.warmup_epochs = 0
        if decoupled is None:
            self.kd_loss = KLDivLogitLoss(**settings)
        else:
            parts = _decoupled(decoupled)
            self.warmup_epochs = parts.pop('warmup_epochs')
            self.kd_loss = DKDLoss(**settings, **parts)
        if kd_weight:
            check_same_classes('KD', self.student, self.teacher)

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Compute both terms of a batch.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: B samples with labels.

        Returns:
            ``loss_ce`` and ``loss_kd``: scalars, those that have a weight.
        """
        student_logits = forward_taps(self.student, inputs, ['logits'])['logits']  # (B, K)
        losses = {}
        if self.ce_weight:
            losses['loss_ce'] = self.ce_weight * classifier_loss(self.student, student_logits, data_samples)
        if self.kd_weight:
            teacher_logits = self.teacher(inputs, data_samples=data_samples)['logits']  # no gradient
            labels = (labels_of('KD', data_samples),) if isinstance(self.kd_loss, DKDLoss) else ()
            weight = self.kd_weight * self._warmup()
            losses['loss_kd'] = weight * self.kd_loss(student_logits, teacher_logits, *labels)
        return losses

    def _warmup(self) -> float:
        """Return ``min(epoch / warmup_epochs, 1)``, epochs counted from 1."""
        if not self.warmup_epochs:
            return 1.0
        hub = MessageHub.get_current_instance()
        if self.warmup_epochs > 1 and hub.get_info('max_epochs', None) == 1:
            raise UserError(
                f'KD: decoupled.warmup_epochs={self.warmup_epochs} counts epochs, and this run has one (so have all '
                'that count iterations): set warmup_epochs=0, or train_cfg=dict(by_epoch=True, max_epochs=...)'
            )
        return min((hub.get_info('epoch', 0) + 1) / self.warmup_epochs, 1.0)


def _decoupled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the settings of DKD and fill in the defaults."""
    if not isinstance(given, Mapping):
        raise UserError(f'KD: decoupled={given!r} is no dict: write decoupled={DECOUPLED}, or a part of it')
    for name, value in given.items():
        if name not in DECOUPLED:
            raise UserError(f'KD: decoupled.{name} is unknown{did_you_mean(name, DECOUPLED)}')
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise UserError(f'KD: decoupled.{name}={value!r} is no number from 0')
    return {**DECOUPLED, **given}
