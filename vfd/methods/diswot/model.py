"""The distillers of DisWOT: soft labels, and the relations that its score compares.

Paper: "DisWOT: Student Architecture Search for Distillation WithOut Training", CVPR 2023, arXiv 2303.15678. With F_T
and F_S the maps before the pooling, the loss of a batch is::

    gamma CE + alpha KD(T=4) + relation_weight M_r(F_T, F_S) + channel_weight M_s'(F_T, F_S)

In a config::

    model = dict(
        type='vfd.DisWOT',
        student=dict(type='mmpretrain.TimmClassifier', model_name='cifar_resnet', blocks=(7, 1, 3), num_classes=100),
        teacher=dict(
            type='vfd.Teacher',
            source=dict(type='vfd.TimmSource', model_name='cifar_resnet110', num_classes=100),
            checkpoint='checkpoints/resnet110_cifar100.pth'),
        relation_loss=dict(type='vfd.RelationLoss', loss_weight=3000.0),
        channel_loss=dict(type='vfd.ChannelCorrelationLoss'))
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vfd.errors import UserError
from vfd.losses.feature_maps import ChannelCorrelationLoss
from vfd.losses.sample_relations import RelationLoss
from vfd.losses.soft_label import kl
from vfd.registry import MODELS
from vfd.teachers import Distiller

MODELS.register_module(module=RelationLoss)
MODELS.register_module(module=ChannelCorrelationLoss)


@MODELS.register_module()
class DisWOT(Distiller):
    """Trains ``student`` on labels, on the teacher's soft labels, and on the relations in its last map.

    Without ``relation_loss`` and ``channel_loss`` this is :class:`vfd.methods.kd.KD`.

    Args:
        student: config of a classifier: mmpretrain's ``TimmClassifier`` or ``ImageClassifier``.
        teacher: config of a :class:`vfd.Teacher` with as many classes.
        ce_weight: gamma, of the labels; 0.1 as published. 0 leaves the labels out.
        kd_weight: alpha, of the soft labels; 0.9 as published.
        temperature: of the soft labels.
        relation_loss: config of the loss between the samples' relations, or None.
        channel_loss: config of the loss between the channels' correlations, or None; needs equal widths.
        feature_tap: where the teacher's map is; its last stage. The student's is always that of its last stage.
        data_preprocessor: config; makes the batches for both.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: class counts that differ, no term at all.
    """

    def __init__(
        self,
        student: dict,
        teacher: dict,
        ce_weight: float = 0.1,
        kd_weight: float = 0.9,
        temperature: float = 4.0,
        relation_loss: dict | None = None,
        channel_loss: dict | None = None,
        feature_tap: str = 'stage.-1',
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if temperature <= 0:
            raise UserError(f'DisWOT: temperature={temperature} must be positive')
        compares = relation_loss is not None or channel_loss is not None
        if not (ce_weight or kd_weight or compares):
            raise UserError('DisWOT: every term has weight 0, there is nothing to train on')
        taps = (['logits'] if kd_weight else []) + ([feature_tap] if compares else [])
        super().__init__(student, {**teacher, 'taps': taps or ['logits']}, data_preprocessor, init_cfg)
        self.ce_weight, self.kd_weight, self.temperature = ce_weight, kd_weight, temperature
        self.relation_loss = MODELS.build(relation_loss) if relation_loss is not None else None
        self.channel_loss = MODELS.build(channel_loss) if channel_loss is not None else None
        self.feature_tap = feature_tap
        self._check_classes()

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """All terms of a batch.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: B samples with labels.

        Returns:
            ``loss_ce``, ``loss_kd``, ``loss_relation``, ``loss_channel``: scalars, those that have a weight.
        """
        logits, last_map = self._logits_and_map(inputs)  # (B, K), (B, C, H, W) where maps are compared
        losses = {}
        if self.ce_weight:
            losses['loss_ce'] = self.ce_weight * self._cross_entropy(logits, data_samples)
        if not self.teacher_asked:
            return losses
        taught = self.teacher(inputs, data_samples=data_samples)
        if self.kd_weight:
            losses['loss_kd'] = self.kd_weight * kl(logits, taught['logits'], self.temperature)
        if self.relation_loss is not None:
            losses['loss_relation'] = self.relation_loss(last_map, taught[self.feature_tap])
        if self.channel_loss is not None:
            losses['loss_channel'] = self.channel_loss(last_map, taught[self.feature_tap])
        return losses

    @property
    def teacher_asked(self) -> bool:
        """Whether any term needs the teacher."""
        return bool(self.kd_weight) or self._compares

    @property
    def _compares(self) -> bool:
        """Whether any term looks at maps."""
        return self.relation_loss is not None or self.channel_loss is not None

    def _logits_and_map(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one forward pass; the map is the one that a teacher gives at ``stage.-1``.

        That is the last stage's (B, C, H, W): of a transformer the tokens of the patches before the final norm, of a
        network that widens its last map for the classifier (EfficientNet) the map before that.
        """
        student: Any = self.student
        if hasattr(student, 'backbone'):  # mmpretrain's ImageClassifier
            maps = student.extract_feat(inputs, stage='backbone')
            features = student.neck(maps) if student.with_neck else maps
            return student.head(features), maps[-1]
        network = student.model  # timm's
        if not self._compares:
            return network(inputs), inputs
        features, maps = network.forward_intermediates(inputs, indices=1)
        return network.forward_head(features), maps[-1]

    def _cross_entropy(self, logits: Tensor, data_samples: list | None) -> Tensor:
        """The student's own classification loss, as its config names it."""
        student: Any = self.student
        owner = student.head if hasattr(student, 'head') else student
        return owner._get_loss(logits, data_samples)['loss']

    def _check_classes(self) -> None:
        head: Any = getattr(self.student, 'head', None) or getattr(self.student, 'model', None)
        ours, theirs = getattr(head, 'num_classes', None), self.teacher.num_classes
        if self.kd_weight and ours is not None and theirs is not None and ours != theirs:
            raise UserError(
                f'DisWOT: the student has {ours} classes, the teacher {theirs}. Soft labels are compared class by '
                f'class: set the num_classes of the student to {theirs}, or kd_weight=0.'
            )
