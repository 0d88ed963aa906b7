"""The losses of a two-stage detector of mmdet together with the features that they were computed from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vfd.errors import UserError


def check_two_stage(detector: Any, method: str) -> None:
    """Raise unless `loss_and_taps` computes what the detector's own ``loss`` does.

    Args:
        detector: a model of mmdet.
        method: name for the message.

    Raises:
        UserError: it is no two-stage detector, or its class computes its losses in another way than mmdet's
            ``TwoStageDetector`` and ``RPNHead``.
    """
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.detectors.two_stage import TwoStageDetector

    head = getattr(detector, 'rpn_head', None)
    own_loss = getattr(type(detector), 'loss', None) is not TwoStageDetector.loss
    if own_loss or getattr(type(head), 'loss_and_predict', None) is not BaseDenseHead.loss_and_predict:
        raise UserError(
            f'{method}: the student {type(detector).__name__} with {type(head).__name__} computes its losses in '
            'its own way, so that its objectness cannot be read; take a two-stage detector such as mmdet.MaskRCNN with '
            'mmdet.RPNHead'
        )


def loss_and_taps(
    detector: Any, inputs: Tensor, data_samples: list
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Compute a detector's own losses and its taps ``neck.<k>`` and ``rpn.<k>`` in one pass.

    Dropout and drop path are drawn once: what is distilled is what the losses were computed from.

    Args:
        detector: accepted by `check_two_stage`.
        inputs: (B, 3, H, W), preprocessed.
        data_samples: B of mmdet's samples with ``gt_instances``.

    Returns:
        The losses under mmdet's names, and the features by tap: ``neck.<k>`` (B, D, h, w), ``rpn.<k>`` (B, A, h, w).
    """
    from mmdet.models.utils import unpack_gt_instances
    from mmengine.structures import InstanceData

    levels = detector.extract_feat(inputs)
    outputs = detector.rpn_head(levels)  # objectness and box offsets, each one map a level
    truth, ignored, metas = unpack_gt_instances(data_samples)
    objects = [InstanceData(bboxes=boxes.bboxes, labels=torch.zeros_like(boxes.labels)) for boxes in truth]
    first_stage = detector.rpn_head.loss_by_feat(*outputs, objects, metas, ignored)
    settings = detector.train_cfg.get('rpn_proposal', detector.test_cfg.rpn)
    proposals = detector.rpn_head.predict_by_feat(*outputs, batch_img_metas=metas, cfg=settings)
    losses = {name if 'rpn' in name else f'rpn_{name}': value for name, value in first_stage.items()}
    losses |= detector.roi_head.loss(levels, proposals, data_samples)
    features = {f'neck.{k}': level for k, level in enumerate(levels)}
    return losses, features | {f'rpn.{k}': logits for k, logits in enumerate(outputs[0])}
