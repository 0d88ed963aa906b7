"""G2SD, detection stage: a detector is fine-tuned under a bigger one, weighted by its objectness.

Paper: "Generic-to-Specific Distillation of Masked Autoencoders", CVPR 2023, arXiv 2302.14771. Besides its own losses,
the student's feature maps (through one convolution a level) and its objectness follow the teacher's, weighted by the
teacher's objectness at each place. In a config::

    model = dict(
        type='vfd.G2SDDetector',
        student=dict(type='mmdet.MaskRCNN', ...),
        teacher=dict(
            type='vfd.Teacher',
            source=dict(type='vfd.MMDetSource', model=dict(type='mmdet.MaskRCNN', ...)),
            checkpoint='checkpoints/model_final_61ccd1.pkl'),
        data_preprocessor=dict(type='mmdet.DetDataPreprocessor', ...))
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mmengine.config import ConfigDict
from torch import Tensor, nn

from vfd.compat import require
from vfd.errors import UserError
from vfd.losses.feature_richness import FeatureRichnessLoss
from vfd.methods.base import Distiller
from vfd.registry import MODELS
from vfd.students.detector_loss import check_two_stage, loss_and_taps
from vfd.teachers.sources.mmdet import MMDetSource, strides_of

MODELS.register_module(module=FeatureRichnessLoss)


class FeatureAdapter(nn.Module):
    """One 3x3 convolution a level, from the student's width to the teacher's; torch's default initialisation."""

    def __init__(self, in_channels: int, out_channels: int, levels: int) -> None:
        super().__init__()
        convs = [nn.Conv2d(in_channels, out_channels, 3, padding=1) for _ in range(levels)]
        self.conv = nn.ModuleList(convs)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W), level by level."""
        return [conv(map_) for conv, map_ in zip(self.conv, maps, strict=True)]


@MODELS.register_module()
class G2SDDetector(Distiller):
    """Trains a two-stage detector under a frozen one with the same pyramid levels and anchors.

    The student's maps and objectness are computed once, for its own losses and for distillation. The warm-up of the
    loss counts optimizer steps; the count is part of a checkpoint's resume state.

    Args:
        student: config of a detector of mmdet with an ``rpn_head``: ``MaskRCNN``, ``CascadeRCNN``, ``FasterRCNN`` ...
        teacher: config of a :class:`vfd.Teacher` with :class:`vfd.MMDetSource`. Its taps are filled in; its second
            stage is not needed.
        distill_loss: config of the loss; None takes the published :class:`vfd.FeatureRichnessLoss`.
        teacher_train_mode: leave the teacher in training mode while the student trains, so that its drop path is
            active. The released code does this by mistake; False keeps the teacher deterministic.
        data_preprocessor: config of mmdet's ``DetDataPreprocessor``; makes the batches for both.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: no region proposal network, a teacher of another kind, or levels, strides or anchors that differ.
    """

    def __init__(
        self,
        student: dict,
        teacher: dict,
        distill_loss: dict | None = None,
        teacher_train_mode: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        require('mmdet')
        # mmdet reads its settings as attributes, and writes into them.
        detector = ConfigDict(copy.deepcopy(student))
        if not detector.get('rpn_head'):
            raise UserError(
                f'G2SDDetector: the student {detector.get("type")} has no rpn_head, whose objectness is distilled; '
                'take a two-stage detector such as mmdet.MaskRCNN.'
            )
        anchors = detector.rpn_head.get('anchor_generator') or {}
        levels = len(anchors.get('strides', range(5)))  # mmdet's default anchors have five levels
        self.maps, self.objectness = ([f'{kind}.{k}' for k in range(levels)] for kind in ('neck', 'rpn'))
        taps = self.maps + self.objectness
        super().__init__(detector, {**teacher, 'taps': taps}, data_preprocessor, init_cfg)
        check_two_stage(self.student, 'G2SDDetector')
        source = getattr(self.teacher, 'source', None)
        if not isinstance(source, MMDetSource):
            raise UserError(
                'G2SDDetector: the teacher has to be a vfd.Teacher with source=dict(type="vfd.MMDetSource", model=...) '
                f'and not {teacher.get("type")} with {(teacher.get("source") or {}).get("type")}.'
            )
        self._check_heads(self.student.rpn_head, source)
        if teacher_train_mode and self.teacher.has_batch_norm:
            raise UserError(
                'G2SDDetector: teacher_train_mode=True would move the batch-norm statistics of this teacher. Leave it '
                'out; it repeats a mistake of the released code, whose teacher has none.'
            )
        self.teacher_train_mode = teacher_train_mode
        self.adapter = FeatureAdapter(self.student.rpn_head.in_channels, source.channels, levels)
        self.distill_loss = MODELS.build(distill_loss or {'type': 'vfd.FeatureRichnessLoss'})
        self.iteration = 0

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Compute the student's own losses and its distance from the teacher on one batch.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: B of mmdet's samples with ``gt_instances``.

        Returns:
            The losses of the student, and ``loss_richness_feat`` and ``loss_richness_cls``: scalars.
        """
        assert data_samples is not None
        target = self.teacher(inputs)  # {tap: tensor}, no gradient
        losses, features = loss_and_taps(self.student, inputs, data_samples)
        losses['loss_richness_feat'], losses['loss_richness_cls'] = self.distill_loss(
            self.adapter([features[tap] for tap in self.maps]),  # (B, Dt, h, w) a level
            [target[tap] for tap in self.maps],
            [features[tap] for tap in self.objectness],  # (B, A, h, w) a level
            [target[tap] for tap in self.objectness],
            self.iteration // self.accumulative_counts,
        )
        if self.training:
            self.iteration += 1
        return losses

    def train(self, mode: bool = True) -> G2SDDetector:
        """Set the mode of the student, and of the teacher with ``teacher_train_mode``."""
        super().train(mode)
        if getattr(self, 'teacher_train_mode', False):
            self.teacher.network.train(mode)
        return self

    def method_state(self) -> dict[str, int]:
        """Return what a resumed run needs beside the weights."""
        return {'iteration': self.iteration}

    def load_method_state(self, state: dict[str, int]) -> None:
        """Load what :meth:`method_state` returned."""
        self.iteration = state['iteration']

    def _check_heads(self, head: Any, source: MMDetSource) -> None:
        """Raise unless both networks have the same grids and anchors."""
        if not all(hasattr(head, name) for name in ('prior_generator', 'num_base_priors', 'in_channels')):
            raise UserError(
                f"G2SDDetector: the student's {type(head).__name__} is not built on anchors; take mmdet.RPNHead."
            )
        pairs = {
            'strides of the levels': (strides_of(head), source.strides),
            'anchors a place': (head.num_base_priors, source.num_anchors),
        }
        for what, (student_value, teacher_value) in pairs.items():
            if student_value != teacher_value:
                raise UserError(
                    f'G2SDDetector: {what}: student {student_value}, teacher {teacher_value}. Both are compared at '
                    'every place and anchor: give both the same rpn_head.anchor_generator and as many levels.'
                )
