"""Taps of models of mmpretrain, mmdet and mmseg, and of bare backbones; none of the packages is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .numbers import pick


def is_classifier(student: nn.Module) -> bool:
    """Return whether the network is mmpretrain's ``ImageClassifier`` or a child of it."""
    return _is_a(student, 'mmpretrain', 'ImageClassifier')


def is_detector(student: nn.Module) -> bool:
    """Return whether the network is a detector of mmdet."""
    return _is_a(student, 'mmdet', 'BaseDetector')


def is_segmentor(student: nn.Module) -> bool:
    """Return whether the network is a segmentor of mmseg."""
    return _is_a(student, 'mmseg', 'BaseSegmentor')


def is_backbone(student: nn.Module) -> bool:
    """Return whether the network may be a backbone, or another kind of classifier: any other module of mmengine."""
    return _is_a(student, 'mmengine', 'BaseModule')


def classifier_taps(student: Any, inputs: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
    """See :func:`vfd.students.forward_taps`."""
    maps = student.extract_feat(inputs, stage='backbone')
    found = pick(taps, 'stage', maps, type(student).__name__)
    if 'pooled' in taps or 'logits' in taps:
        features = student.neck(maps) if student.with_neck else maps
        found['pooled'] = features[-1] if isinstance(features, (tuple, list)) else features
        if 'logits' in taps and student.with_head:
            found['logits'] = student.head(features)
    return found


def detector_taps(student: Any, inputs: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
    """See :func:`vfd.students.forward_taps`."""
    maps = student.backbone(inputs)
    found = pick(taps, 'stage', maps, type(student).__name__)
    if any(tap.startswith(('neck.', 'rpn.')) for tap in taps):
        levels = student.neck(maps) if student.with_neck else maps
        found |= pick(taps, 'neck', levels, type(student).__name__)
        if any(tap.startswith('rpn.') for tap in taps) and getattr(student, 'rpn_head', None) is not None:
            found |= pick(taps, 'rpn', student.rpn_head(levels)[0], type(student).__name__)
    return found


def segmentor_taps(student: Any, inputs: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
    """See :func:`vfd.students.forward_taps`."""
    maps = student.backbone(inputs)
    found = pick(taps, 'stage', maps, type(student).__name__)
    levels = student.neck(maps) if student.with_neck else maps
    found |= pick(taps, 'neck', levels, type(student).__name__) if student.with_neck else {}
    if 'seg_logits' in taps:
        found['seg_logits'] = student.decode_head(levels)
    return found


def backbone_taps(student: nn.Module, inputs: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
    """See :func:`vfd.students.forward_taps`; a single output (B, C) is ``logits``."""
    maps = student(inputs)
    if isinstance(maps, Tensor) and maps.ndim == 2:
        return {'logits': maps}
    return pick(taps, 'stage', maps if isinstance(maps, (tuple, list)) else (maps,), type(student).__name__)


def _is_a(module: nn.Module, package: str, name: str) -> bool:
    """Return whether a module is of a class, by names, so that the package need not be installed."""
    return any(
        kind.__name__ == name and kind.__module__.split('.')[0] == package for kind in type(module).__mro__
    )
