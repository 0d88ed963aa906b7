"""Segmentation by text queries, in plain tensors: sliding windows, class scores, background.

The protocol of PH-Reg (NeurIPS 2025, arXiv 2505.21501) and the training-free segmentors it compares with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOWS_AT_ONCE = 32

Box = tuple[int, int, int, int]
SoftmaxOver = Literal['classes', 'queries']


def sliding_windows(height: int, width: int, crop: tuple[int, int], stride: tuple[int, int]) -> list[Box]:
    """Return windows that cover an image, row by row; the last of a row or column is pulled back inside.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        crop: height and width of a window; a side longer than the image is cut to it.
        stride: vertical and horizontal step.

    Returns:
        (top, left, bottom, right) each, in pixels.
    """
    (rows, columns) = (
        _intervals(length, window, step)
        for length, window, step in zip((height, width), crop, stride, strict=True)
    )
    return [(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def _intervals(length: int, window: int, step: int) -> list[tuple[int, int]]:
    count = max(length - window + step - 1, 0) // step + 1
    ends = [min(i * step + window, length) for i in range(count)]
    return [(max(end - window, 0), end) for end in ends]


def slide(
    images: Tensor, crop: tuple[int, int], stride: tuple[int, int], scores: Callable[[Tensor], Tensor]
) -> Tensor:
    """Score every window, bring the maps to the size of the window, and average where windows overlap.

    Windows have one size, so several go through the network at once.

    Args:
        images: (B, 3, H, W).
        crop: see `sliding_windows`.
        stride: see `sliding_windows`.
        scores: (N, 3, h, w) crops to (N, Q, h', w') maps.

    Returns:
        (B, Q, H, W).
    """
    batch, _, height, width = images.shape
    boxes = sliding_windows(height, width, crop, stride)
    count = images.new_zeros(height, width)
    total = images.new_zeros(batch, 1, height, width)
    for start in range(0, len(boxes), _WINDOWS_AT_ONCE):
        chunk = boxes[start : start + _WINDOWS_AT_ONCE]
        windows = torch.cat([images[:, :, top:bottom, left:right] for top, left, bottom, right in chunk])
        maps = scores(windows)
        if start == 0:
            total = total.to(maps).repeat(1, maps.shape[1], 1, 1)
        for (top, left, bottom, right), part in zip(chunk, maps.split(batch), strict=True):
            size = (bottom - top, right - left)
            total[:, :, top:bottom, left:right] += F.interpolate(
                part, size, mode='bilinear', align_corners=False
            )
            count[top:bottom, left:right] += 1
    return total / count


def query_scores(features: Tensor, queries: Tensor) -> Tensor:
    """Compute the cosines of patches and unit text features: (B, D, h, w) and (Q, D) to (B, Q, h, w)."""
    return torch.einsum('bdhw,qd->bqhw', F.normalize(features, dim=1), queries.to(features))


def class_scores(
    logits: Tensor, class_of_query: Tensor, scale: float, softmax_over: SoftmaxOver = 'classes'
) -> tuple[Tensor, Tensor]:
    """Compute scores and probabilities of classes from those of queries; a class is scored by its best name.

    Over the classes, the softmax is that of the reference values of the golden test. Over all queries, before the best
    name is taken, it is as the protocol is also described: the labels are the same and the probabilities smaller
    wherever a class has several names, so that a threshold gives more background. Where every class has one name,
    both are the same.

    Args:
        logits: (Q, H, W) cosines.
        class_of_query: (Q,) long, classes 0 to C - 1, each at least once.
        scale: factor of the cosines before the softmax.
        softmax_over: ``classes`` or ``queries``.

    Returns:
        ``scale`` times the largest cosine of every class, and its probability: (C, H, W) each.
    """
    scores = _best_of_class(scale * logits, class_of_query)
    if softmax_over == 'classes':
        return scores, scores.softmax(0)
    return scores, _best_of_class((scale * logits).softmax(0), class_of_query)


def _best_of_class(maps: Tensor, class_of_query: Tensor) -> Tensor:
    """Take the largest value over the names of a class: (Q, H, W) to (C, H, W)."""
    count = int(class_of_query.max()) + 1
    if count == len(maps):
        return maps
    return torch.stack([maps[class_of_query == i].amax(0) for i in range(count)])


def choose_class(probabilities: Tensor, prob_thd: float) -> Tensor:
    """Choose the likeliest class of every pixel, and class 0 (background) where it is less likely than ``prob_thd``.

    Args:
        probabilities: (C, H, W).
        prob_thd: 0 leaves all as they are.

    Returns:
        (1, H, W) long.
    """
    best, chosen = probabilities.max(0, keepdim=True)
    return chosen.masked_fill(best < prob_thd, 0)
