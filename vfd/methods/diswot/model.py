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

from torch import Tensor, nn

from vfd.errors import UserError
from vfd.losses.feature_maps import ChannelCorrelationLoss
from vfd.losses.sample_relations import RelationLoss
from vfd.losses.soft_label import kl
from vfd.methods.base import Distiller
from vfd.registry import MODELS
from vfd.students import check_same_classes, classifier_loss, forward_taps

LAST_MAP = 'stage.-1'

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
        feature_tap: str = LAST_MAP,
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
        if kd_weight:
            check_same_classes('DisWOT', self.student, self.teacher)

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Compute all terms of a batch.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: B samples with labels.

        Returns:
            ``loss_ce``, ``loss_kd``, ``loss_relation``, ``loss_channel``: scalars, those that have a weight.
        """
        features = forward_taps(self.student, inputs, ['logits', LAST_MAP] if self._compares else ['logits'])
        logits, last_map = features['logits'], features.get(LAST_MAP)  # (B, K), (B, C, H, W)
        losses = {}
        if self.ce_weight:
            losses['loss_ce'] = self.ce_weight * classifier_loss(self.student, logits, data_samples)
        if not self.needs_teacher:
            return losses
        target = self.teacher(inputs, data_samples=data_samples)
        if self.kd_weight:
            losses['loss_kd'] = self.kd_weight * kl(logits, target['logits'], self.temperature)
        if self.relation_loss is not None:
            losses['loss_relation'] = self.relation_loss(last_map, target[self.feature_tap])
        if self.channel_loss is not None:
            losses['loss_channel'] = self.channel_loss(last_map, target[self.feature_tap])
        return losses

    @property
    def needs_teacher(self) -> bool:
        """Whether any term needs the teacher."""
        return bool(self.kd_weight) or self._compares

    @property
    def _compares(self) -> bool:
        """Whether any term compares maps."""
        return self.relation_loss is not None or self.channel_loss is not None
