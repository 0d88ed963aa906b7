"""Non-maximum suppression: hard, soft (Bodla et al., 2017) and the groups of suppressed boxes.

``offset`` is 0 or 1: a box spans ``x2 - x1 + offset`` pixels.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

SOFT_NAIVE, SOFT_LINEAR, SOFT_GAUSSIAN = range(3)  # mmcv's codes of the soft method


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Apply hard suppression.

    Args:
        bboxes: (N, 4) corners x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: A box that overlaps a better one by more than this is dropped.
        offset: 0 or 1.

    Returns:
        (K,) int64 indices of the boxes that stay, best first.
    """
    bboxes = bboxes if bboxes.dtype == torch.float64 else bboxes.float()  # half kernels do not exist on CPU
    # With x2 and y2 moved by one, areas and overlaps are those of offset 1.
    bboxes = bboxes + bboxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(bboxes, scores.to(bboxes.dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Apply soft suppression: overlapped boxes lose score, and leave when it falls below ``min_score``.

    Args:
        boxes: (N, 4) on the CPU.
        scores: (N,).
        dets: (N, 5), filled in place: row k is the k-th kept box and its decayed score.
        iou_threshold: Overlap from which the naive and the linear method act.
        sigma: Width of the gaussian method.
        min_score: Score below which a box is dropped.
        method: 0 naive (overlapped boxes get score 0), 1 linear, 2 gaussian.
        offset: 0 or 1.

    Returns:
        (K,) int64 indices of the boxes that stay, in the order of ``dets``.
    """
    scores = scores.clone()
    waiting = torch.arange(len(boxes))
    kept: list[Tensor] = []
    while len(waiting):
        best = scores[waiting].argmax()
        index = waiting[best]
        dets[len(kept), :4], dets[len(kept), 4] = boxes[index], scores[index]
        kept.append(index)

        waiting = torch.cat([waiting[:best], waiting[best + 1 :]])
        iou = _iou(boxes[index], boxes[waiting], offset)  # (len(waiting),)
        if method == SOFT_NAIVE:
            decay = (iou < iou_threshold).to(iou.dtype)
        elif method == SOFT_LINEAR:
            decay = torch.where(iou >= iou_threshold, 1 - iou, 1.0)
        else:
            assert method == SOFT_GAUSSIAN, f'unknown soft-NMS method {method}'
            decay = torch.exp(-iou.square() / sigma)
        scores[waiting] *= decay
        waiting = waiting[scores[waiting] >= min_score]
    return torch.stack(kept) if kept else waiting


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group the boxes: each kept box, followed by those that it suppresses, best first.

    Args:
        dets: (N, 5) corners and score, on the CPU.
        iou_threshold: A box that overlaps the kept one by this or more joins its group.
    """
    waiting = dets[:, 4].argsort(descending=True, stable=True)
    groups = []
    while len(waiting):
        best, others = waiting[0], waiting[1:]
        joins = _iou(dets[best, :4], dets[others, :4], offset=0) >= iou_threshold
        groups.append([int(best), *others[joins].tolist()])
        waiting = others[~joins]
    return groups


def _iou(box: Tensor, others: Tensor, offset: int) -> Tensor:
    """Compute the overlap of one box (4,) with others (N, 4), as (N,)."""
    top_left = torch.maximum(box[:2], others[:, :2])
    bottom_right = torch.minimum(box[2:], others[:, 2:])
    intersection = (bottom_right - top_left + offset).clamp(min=0).prod(dim=1)
    area = (box[2:] - box[:2] + offset).prod()
    areas = (others[:, 2:] - others[:, :2] + offset).prod(dim=1)
    return intersection / (area + areas - intersection)
