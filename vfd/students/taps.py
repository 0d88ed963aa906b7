"""Features of a student at named taps, from one forward pass.

    features = forward_taps(student, images, ['logits', 'stage.-1'])

The taps are those of :mod:`vfd.teachers.sources`, and a tap of a student means what it means of a teacher:

====================  =========================================  ==============================================
tap                   shape                                      networks
====================  =========================================  ==============================================
``logits``            (B, C)                                     classifiers of timm and mmpretrain
``pooled``            (B, D)                                     classifiers of timm and mmpretrain
``stage.<k>``         (B, D, H, W)                               all with feature maps; numbers from the end too
``block.<k>``         (B, prefix + N, D)                         transformers of timm, ``vfd.MaskedViT``
``latent``, ``cls``   (B, 1 + N, D), (B, D)                      ``vfd.MaskedViT``
``dense``             (B, N, D)                                  ``vfd.RegisterViT``, ``vfd.RegisterCLIP``
``neck.<k>``          (B, D, H, W)                               detectors of mmdet, segmentors with a neck
``rpn.<k>``           (B, A, H, W)                               two-stage detectors of mmdet
``seg_logits``        (B, C, h, w)                               segmentors of mmseg with one decode head
====================  =========================================  ==============================================

A network of your own needs a method ``forward_taps(inputs, taps) -> {tap: tensor}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from vfd.errors import UserError, did_you_mean

from . import openmmlab, timm, vfd_networks

Features = dict[str, Any]  # by tap: a tensor, or vfd.stores.Ragged for regions and points
_ADAPTERS: tuple[tuple[Callable[[nn.Module], bool], Callable[..., Features]], ...] = (
    (vfd_networks.is_masked_vit, vfd_networks.masked_vit_taps),
    (vfd_networks.is_register_backbone, vfd_networks.register_taps),
    (timm.is_timm, timm.timm_taps),
    (openmmlab.is_classifier, openmmlab.classifier_taps),
    (openmmlab.is_detector, openmmlab.detector_taps),
    (openmmlab.is_segmentor, openmmlab.segmentor_taps),
    (openmmlab.is_backbone, openmmlab.backbone_taps),
)


def forward_taps(student: nn.Module, inputs: Any, taps: Sequence[str]) -> Features:
    """Compute the features of a student at some taps in one pass, with gradient.

    Args:
        student: a model of mmpretrain, mmdet, mmseg or timm, one of their backbones, or any module with a method of
            this name.
        inputs: as the data preprocessor makes them: (B, 3, H, W) for images.
        taps: names of the table above.

    Returns:
        One entry a tap.

    Raises:
        UserError: the student has no such tap.
    """
    if hasattr(student, 'forward_taps'):
        found: Mapping[str, Tensor] = student.forward_taps(inputs, taps)  # type: ignore[operator]
    else:
        for fits, adapter in _ADAPTERS:
            if fits(student):
                found = adapter(student, inputs, taps)
                break
        else:
            raise UserError(
                f'the student {type(student).__name__} is no network whose features are known: give it a method '
                'forward_taps(inputs, taps), which returns a tensor for each tap'
            )
    if missing := [tap for tap in taps if tap not in found]:
        raise UserError(
            f'the student {type(student).__name__} has no features at {", ".join(missing)}'
            f'{did_you_mean(missing[0], found)}; it has {", ".join(found) or "none of the taps"}'
        )
    return {tap: found[tap] for tap in taps}
