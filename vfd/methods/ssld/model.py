"""SSLD: label-free distillation of a teacher's softmax output.

Paper: "Beyond Self-Supervision: A Simple Yet Effective Network Distillation Alternative to Improve Backbones", 2021,
arXiv 2103.05959. Student and teacher see the same augmented image; the loss compares their softmax outputs; labels
are never read, so unlabelled images train like labelled ones. In a config::

    model = dict(
        type='vfd.SSLDDistiller',
        student=dict(type='mmpretrain.TimmClassifier', model_name='mobilenetv3_large_100'),
        teacher=dict(
            type='vfd.Teacher',
            source=dict(type='vfd.TimmSource', model_name='hgnet_small.ssld_in1k'),
            checkpoint='pretrained'),
        distill_loss=dict(type='vfd.SSLDLoss', mode='js'))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vfd.errors import UserError
from vfd.losses import FeatureDistanceLoss, SSLDLoss
from vfd.methods.base import Distiller
from vfd.registry import MODELS
from vfd.students import check_same_classes, forward_taps

MODELS.register_module(module=SSLDLoss)
MODELS.register_module(module=FeatureDistanceLoss)


@MODELS.register_module()
class SSLDDistiller(Distiller):
    """Trains ``student`` to output what ``teacher`` outputs.

    Args:
        student: config of a classifier whose ``tensor`` mode gives logits (mmpretrain's ``TimmClassifier`` and
            ``ImageClassifier`` do).
        teacher: config of a :class:`vfd.Teacher` or :class:`vfd.StoredTeacher` with as many classes.
        distill_loss: config of the loss between both logits.
        teacher_bn: ``train`` normalises the teacher with the statistics of the batch, as published (76.00 against
            75.84 with ``eval``, MobileNetV3-large); ``eval`` with the stored ones. None takes what the weight file
            says (:class:`vfd.teachers.TeacherCard`), else ``train`` for a teacher with batch norm and ``eval`` for any
            other.
        feature_tap: ``stage.<k>`` of teacher and student whose maps are compared as well (of equal shape); the extra
            of the UDML recipe, not of SSLD proper. None compares logits only.
        feature_loss: config of the loss between both maps; None takes l2, as published. Needs ``feature_tap``.
        train_only: beginnings of the student's parameter names that train; all else is frozen, batch-norm
            statistics included (the "Fix" recipe trains the classifier alone). None trains everything.
        data_preprocessor: config; makes the batches for both.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: for class counts that differ, and for settings that contradict each other.
    """

    def __init__(
        self,
        student: dict,
        teacher: dict,
        distill_loss: dict | None = None,
        teacher_bn: Literal['train', 'eval'] | None = None,
        feature_tap: str | None = None,
        feature_loss: dict | None = None,
        train_only: Sequence[str] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        taps = ('logits',) if feature_tap is None else ('logits', feature_tap)
        teacher = {'taps': taps, **teacher}
        if missing := [tap for tap in taps if tap not in teacher['taps']]:
            raise UserError(
                f'SSLDDistiller: the taps of the teacher, {list(teacher["taps"])}, lack {missing}.'
            )
        if feature_loss is not None and feature_tap is None:
            raise UserError('SSLDDistiller: feature_loss needs feature_tap, for example "stage.3".')
        super().__init__(student, teacher, data_preprocessor, init_cfg)
        self.distill_loss = MODELS.build(distill_loss or {'type': 'vfd.SSLDLoss'})
        self.taps = taps
        self.feature_tap = feature_tap
        feature_loss = feature_loss or {'type': 'vfd.FeatureDistanceLoss'}
        self.feature_loss = MODELS.build(feature_loss) if feature_tap else None
        self.teacher.set_bn(self._teacher_bn(teacher_bn, teacher.get('bn')))
        check_same_classes('SSLDDistiller', self.student, self.teacher)
        self._freeze(train_only)

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Compute the student's distance from the teacher on one batch.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: B samples. Their labels are not read; a stored teacher finds its records by their
                ``img_path``.

        Returns:
            ``loss_ssld`` and, with a feature tap, ``loss_feature``: scalars.
        """
        target = self.teacher(inputs, data_samples=data_samples)  # {tap: tensor}, no gradient
        features = forward_taps(self.student, inputs, self.taps)  # logits (B, C), map (B, D, h, w)
        losses = {'loss_ssld': self.distill_loss(features['logits'], target['logits'])}
        if self.feature_loss is not None and self.feature_tap is not None:
            losses['loss_feature'] = self.feature_loss(features[self.feature_tap], target[self.feature_tap])
        return losses

    def train(self, mode: bool = True) -> SSLDDistiller:
        """Set the mode of what trains; the teacher and frozen parts of the student stay in eval mode."""
        super().train(mode)
        for module in getattr(self, '_frozen_norms', ()):
            module.eval()
        return self

    def _teacher_bn(self, given: str | None, in_config: str | None) -> str:
        if given not in (None, 'train', 'eval'):
            raise UserError(f'SSLDDistiller: teacher_bn={given!r} is not one of "train", "eval".')
        if given and in_config and given != in_config:
            raise UserError(
                f'SSLDDistiller: teacher_bn="{given}", but the teacher config says bn="{in_config}".'
            )
        wanted = given or in_config or self.teacher.card.bn
        if wanted == 'train' and not self.teacher.has_batch_norm:
            raise UserError('SSLDDistiller: teacher_bn="train", but the teacher has no batch norm.')
        return wanted or ('train' if self.teacher.has_batch_norm else 'eval')

    def _freeze(self, train_only: Sequence[str] | None) -> None:
        if train_only is None:
            return
        # The names under which the checkpoint stores the student, without TimmClassifier's own "model.".
        names = {name: name.removeprefix('model.') for name, _ in self.student.named_modules()}
        names |= {name: name.removeprefix('model.') for name, _ in self.student.named_parameters()}
        begins = tuple(train_only)
        parameters = dict(self.student.named_parameters())
        for name, parameter in parameters.items():
            parameter.requires_grad_(names[name].startswith(begins))
        if not any(parameter.requires_grad for parameter in parameters.values()):
            tops = ', '.join(dict.fromkeys(names[name].split('.')[0] for name in parameters))
            raise UserError(f'SSLDDistiller: no parameter begins with {list(begins)}; there are: {tops}.')
        self._frozen_norms = [
            module
            for name, module in self.student.named_modules()
            if isinstance(module, _BatchNorm) and not names[name].startswith(begins)
        ]
