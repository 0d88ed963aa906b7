"""A detector of mmdet as one graph from an image to boxes, without Python that depends on the data.

mmdet's own ``predict`` branches on what it finds, which a graph cannot. The networks, anchors, box coders and the
pasting of masks stay mmdet's; suppression and region pooling are torchvision's, which ONNX has as operators. One image
of H x W pixels; N boxes; C classes; D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from vfd.errors import UserError


def detector_graph(model: nn.Module) -> nn.Module:
    """The graph of a detector: one normalised image (1, 3, H, W) to boxes (N, 4), scores (N,), labels (N,), masks.

    Raises:
        UserError: a detector whose boxes are made in another way than RetinaNet's, FCOS's, Faster R-CNN's or
            Mask R-CNN's.
    """
    from mmdet.models.dense_heads import RPNHead
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.detectors import SingleStageDetector, TwoStageDetector

    dense = ('predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
    if isinstance(model, TwoStageDetector):
        _same(model, TwoStageDetector, 'predict', 'extract_feat')
        _same(model.rpn_head, RPNHead, *dense[1:])
        _check_nms(model.rpn_head.test_cfg.get('nms'))
        _check_second_stage(model.roi_head)
        return TwoStageGraph(model)
    if isinstance(model, SingleStageDetector):
        _same(model, SingleStageDetector, 'predict', 'extract_feat')
        _same(model.bbox_head, BaseDenseHead, *dense)
        _check_nms(model.bbox_head.test_cfg.get('nms'))
        return SingleStageGraph(model)
    raise UserError(
        f'{type(model).__name__} has no graph in vfd: ONNX takes detectors of one or two stages (RetinaNet, FCOS, '
        'Faster R-CNN, Mask R-CNN). --to mmdet takes every detector; --part backbone its backbone.'
    )


class SingleStageGraph(nn.Module):
    """Detectors that classify every place of the pyramid: RetinaNet, FCOS, ATSS and others with mmdet's dense head."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) to boxes (N, 4), scores (N,) and labels (N,), best first."""
        head, size = self.detector.bbox_head, images.shape[-2:]
        cfg = head.test_cfg
        outputs = head(self.detector.extract_feat(images))
        priors = _priors(head, outputs[0])
        parts = []
        for level, (logits, *others) in enumerate(zip(*outputs, strict=True)):
            scores = _probabilities(head, logits)  # (n, C)
            deltas, *factors = (_rows(other, 4 if k == 0 else 1) for k, other in enumerate(others))
            place, label = (scores > cfg.get('score_thr', 0)).nonzero().unbind(1)
            scores, order = scores[place, label].sort(descending=True)
            if cfg.get('nms_pre', -1) > 0:
                scores, order = scores[: cfg.nms_pre], order[: cfg.nms_pre]
            place, label = place[order], label[order]
            for factor in factors:  # centerness
                scores = scores * factor[place, 0].sigmoid()
            parts.append((priors[level][place], deltas[place], scores, label))
        anchors, deltas, scores, labels = map(torch.cat, zip(*parts, strict=True))
        boxes = _clipped(head.bbox_coder.decode(anchors, deltas), size)
        return _best(boxes, scores, labels, cfg, size)


class TwoStageGraph(nn.Module):
    """Faster R-CNN and Mask R-CNN."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) to boxes (N, 4), scores (N,), labels (N,) and, with a mask head, masks (N, H, W)."""
        size, head = images.shape[-2:], self.detector.roi_head
        maps = self.detector.extract_feat(images)
        boxes, scores, labels = self._boxes(maps, self._proposals(maps, size), size)
        if not head.with_mask:
            return boxes, scores, labels
        from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

        logits = head.mask_head(_pooled(head.mask_roi_extractor, maps, boxes))  # (N, C, m, m)
        if not head.mask_head.class_agnostic:
            logits = logits[torch.arange(labels.shape[0]), labels][:, None]  # len() is a constant of a trace
        pasted, _ = _do_paste_mask(logits.sigmoid(), boxes, *size, skip_empty=False)
        return boxes, scores, labels, pasted >= head.test_cfg.mask_thr_binary

    def _proposals(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The best regions (N, 4) of the region proposal network."""
        head = self.detector.rpn_head
        cfg = head.test_cfg
        outputs = head(maps)
        priors = _priors(head, outputs[0])
        parts = []
        for level, (logits, deltas) in enumerate(zip(*outputs, strict=True)):
            scores, order = _probabilities(head, logits)[:, 0].sort(descending=True)
            if cfg.get('nms_pre', -1) > 0:
                scores, order = scores[: cfg.nms_pre], order[: cfg.nms_pre]
            group = torch.full_like(order, level)
            parts.append((priors[level][order], _rows(deltas, 4)[order], scores, group))
        anchors, deltas, scores, groups = map(torch.cat, zip(*parts, strict=True))
        boxes = _clipped(head.bbox_coder.decode(anchors, deltas), size)
        return _best(boxes, scores, groups, cfg, size)[0]

    def _boxes(self, maps: Sequence[Tensor], regions: Tensor, size: Sequence[int]) -> tuple[Tensor, ...]:
        """Regions (N, 4) to the boxes, scores and labels of the second stage."""
        stage, cfg = self.detector.roi_head, self.detector.roi_head.test_cfg
        head = stage.bbox_head
        logits, deltas = head(_pooled(stage.bbox_roi_extractor, maps, regions))
        scores = logits.softmax(-1)[:, :-1]  # (N, C)
        classes = scores.shape[1]
        per_class = 1 if head.reg_class_agnostic else classes
        anchors = regions[:, None].expand(-1, per_class, 4).reshape(-1, 4)
        boxes = _clipped(head.bbox_coder.decode(anchors, deltas.reshape(-1, 4)), size)
        boxes = boxes.reshape(-1, per_class, 4).expand(-1, classes, 4)
        region, label = (scores > cfg.score_thr).nonzero().unbind(1)
        return _best(boxes[region, label], scores[region, label], label, cfg, size)


def _rows(maps: Tensor, width: int) -> Tensor:
    """One map (1, A * width, h, w) as (h * w * A, width)."""
    return maps[0].permute(1, 2, 0).reshape(-1, width)


def _probabilities(head: Any, logits: Tensor) -> Tensor:
    """(1, A * C, h, w) to (h * w * A, C)."""
    rows = _rows(logits, head.cls_out_channels)
    return rows.sigmoid() if head.use_sigmoid_cls else rows.softmax(-1)[:, :-1]


def _priors(head: Any, maps: Sequence[Tensor]) -> list[Tensor]:
    sizes = [tuple(level.shape[-2:]) for level in maps]
    return head.prior_generator.grid_priors(sizes, dtype=maps[0].dtype, device=maps[0].device)


def _clipped(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes (N, 4) inside the image; the sides may be tensors of a trace."""
    height, width = size
    x, y = boxes[:, 0::2].clamp(min=0).clamp(max=width), boxes[:, 1::2].clamp(min=0).clamp(max=height)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


def _best(boxes: Tensor, scores: Tensor, groups: Tensor, cfg: Any, size: Sequence[int]) -> tuple[Tensor, ...]:
    """Suppress boxes that overlap a better one of their group: classes, or levels. Best first."""
    smallest = cfg.get('min_bbox_size', -1)
    if smallest >= 0:
        keep = ((boxes[:, 2:] - boxes[:, :2]) > smallest).all(1).nonzero()[:, 0]
        boxes, scores, groups = boxes[keep], scores[keep], groups[keep]
    apart = groups.to(boxes) * (size[0] + size[1])  # no box of one group reaches one of another
    keep = nms(boxes + apart[:, None], scores, cfg.nms['iou_threshold'])
    if cfg.get('max_per_img', -1) > 0:
        keep = keep[: cfg.max_per_img]
    return boxes[keep], scores[keep], groups[keep]


def _pooled(extractor: Any, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Features (N, D, k, k) of boxes (N, 4), each from the level that fits its size."""
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    maps = maps[: extractor.num_inputs]
    levels = extractor.map_roi_levels(rois, len(maps))
    features, origins = [], []
    for level, (map_, layer) in enumerate(zip(maps, extractor.roi_layers, strict=True)):
        origin = (levels == level).nonzero()[:, 0]
        features.append(
            roi_align(
                map_,
                rois[origin],
                layer.output_size,
                layer.spatial_scale,
                layer.sampling_ratio,
                layer.aligned,
            )
        )
        origins.append(origin)
    return torch.cat(features)[torch.cat(origins).argsort()]


def _check_second_stage(head: Any) -> None:
    from mmdet.models.roi_heads import SingleRoIExtractor, StandardRoIHead
    from mmdet.models.roi_heads.bbox_heads import BBoxHead
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead

    extractors = [head.bbox_roi_extractor]
    _same(head, StandardRoIHead, 'predict', 'predict_bbox', 'predict_mask')
    _same(head.bbox_head, BBoxHead, 'predict_by_feat', '_predict_by_feat_single')
    if head.bbox_head.custom_cls_channels or not head.bbox_head.with_reg:
        raise _refusal(head.bbox_head, 'scores or boxes that are not plain')
    if head.with_mask:
        _same(head.mask_head, FCNMaskHead, 'predict_by_feat', '_predict_by_feat_single')
        extractors.append(head.mask_roi_extractor)
        if head.test_cfg.mask_thr_binary < 0:
            raise _refusal(head.mask_head, 'mask_thr_binary below 0')
    for extractor in extractors:
        _same(extractor, SingleRoIExtractor, 'forward', 'map_roi_levels')
        for layer in extractor.roi_layers:
            if type(layer).__name__ != 'RoIAlign' or layer.pool_mode != 'avg':
                raise _refusal(layer, 'another pooling than RoIAlign with pool_mode="avg"')
    _check_nms(head.test_cfg.nms)


def _check_nms(nms_cfg: Any) -> None:
    """Only hard suppression by class has an operator."""
    if not nms_cfg or nms_cfg.get('type', 'nms') != 'nms' or set(nms_cfg) - {'type', 'iou_threshold'}:
        raise UserError(
            f'ONNX has no operator for the suppression nms={dict(nms_cfg or {})}: only dict(type="nms", '
            'iou_threshold=...) is exported. --to mmdet takes every detector.'
        )


def _same(part: Any, base: type, *methods: str) -> None:
    """Raise unless a part predicts as mmdet's base class does."""
    for method in methods:
        if getattr(type(part), method, None) is not getattr(base, method):
            raise _refusal(part, f'a {method} of its own')


def _refusal(part: Any, what: str) -> UserError:
    return UserError(
        f'{type(part).__name__} has {what}, for which there is no graph: ONNX takes detectors that predict as '
        'RetinaNet, FCOS, Faster R-CNN or Mask R-CNN do. --to mmdet takes every detector; --part backbone its backbone.'
    )
