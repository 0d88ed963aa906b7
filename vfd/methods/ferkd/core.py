"""Stored labels, crop boxes and region calibration, on plain arrays.

M: crops of an image, R: some of them, C: classes, k: classes that a stored label names. Label types and what a stored
label recovers to: :mod:`vfd.losses.sparse_soft_label`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vfd.losses import SparseLabels, label_shape, sparse_labels, top_k

DISCARD, CONTEXT, SOFT = 0, 1, 2  # categories of region calibration
CATEGORIES = ('discarded', 'context', 'important')


def compress(probs: Tensor, label_type: str) -> Tensor:
    """Compress probabilities for storage; equal probabilities are in the order of the class ids.

    Args:
        probs: (N, C), rows sum to 1.
        label_type: see :func:`vfd.losses.sparse_labels`.

    Returns:
        (N, *label_shape) in the dtype of ``probs``, class ids as numbers beside the values; int64 (N,) for ``hard``.

    Raises:
        UserError: see :func:`vfd.losses.label_shape`.
    """
    label_shape(label_type, probs.shape[-1])
    if label_type == 'ori':
        return probs
    values, ids = largest(probs, top_k(label_type) or 1)
    if label_type == 'hard':
        return ids[:, 0]
    pair = torch.stack([ids.to(probs.dtype), values], dim=1)  # (N, 2, k)
    return pair[:, :, 0] if label_type == 'smoothing' else pair


def largest(probs: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of every row and their positions, equal values in the order of their positions.

    ``topk`` alone leaves that order open. Only rows whose k-th value occurs again behind it need a whole sort.

    Args:
        probs: (N, C).
        k: at most C.

    Returns:
        values (N, k) and int64 positions (N, k).
    """
    values, ids = probs.topk(min(k + 1, probs.shape[-1]), dim=-1)
    tied = (
        values[:, k - 1] == values[:, k]
        if values.shape[-1] > k
        else torch.zeros(len(values), dtype=torch.bool)
    )
    ids = ids[:, :k].sort(dim=-1).values
    values, order = probs.gather(1, ids).sort(dim=-1, descending=True, stable=True)
    ids = ids.gather(1, order)
    if bool(tied.any()):
        whole, order = probs[tied].sort(dim=-1, descending=True, stable=True)
        values[tied], ids[tied] = whole[:, :k], order[:, :k]
    return values, ids


def boxes_to_fractions(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Convert boxes to the fractions that the released files hold.

    Args:
        boxes: (M, 4) integers: top, left, height, width in pixels.
        size: (H, W) of the decoded image.

    Returns:
        (M, 4) float32: the boxes divided by (H, W, H, W).
    """
    return (boxes / np.array([*size, *size], dtype=np.float64)).astype(np.float32)


def fractions_to_boxes(fractions: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Convert fractions of the image to the pixels that Pillow cuts: every edge is rounded, halves to even.

    Args:
        fractions: (M, 4) floating: top, left, height, width as parts of the image.
        size: (H, W) of the decoded image.

    Returns:
        (M, 4) int64: top, left, height, width in pixels.
    """
    pixels = fractions.astype(np.float32) * np.array([*size, *size], dtype=np.float32)
    first = np.rint(pixels[:, :2])
    last = np.rint(pixels[:, :2] + pixels[:, 2:])
    return np.concatenate([first, last - first], axis=1).astype(np.int64)


@dataclass(frozen=True)
class RegionCalibration:
    """FerKD's rule (arXiv 2312.17473, section 3): which crops are kept, and with which label.

    With the confidence y of a crop: y < low or y > high is discarded, low <= y < mid is context and gets a softened
    ground truth (1 - epsilon, epsilon / (C - 1) for every other class), the rest keeps its soft label. The paper gives
    the rule; the settings, the confidence, the spread of epsilon and ``min_keep`` are project defaults.

    Attributes:
        low: T_L.
        mid: T_M.
        high: T_T.
        epsilon: probability that context crops leave to the other classes.
        confidence: ``'max'``: largest stored probability; ``'gt'``: probability of the ground-truth class.
        min_keep: discarded crops nearest to [low, high] are taken back until an image has that many: those below
            ``low`` as context, those above ``high`` with their soft label.

    Raises:
        ValueError: thresholds out of order, or a value outside its range.
    """

    low: float
    mid: float
    high: float
    epsilon: float = 0.1
    confidence: Literal['max', 'gt'] = 'max'
    min_keep: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.mid <= self.high <= 1:
            raise ValueError(
                f'thresholds of the calibration: low={self.low}, mid={self.mid}, high={self.high}; expected '
                '0 <= low <= mid <= high <= 1'
            )
        if not 0 <= self.epsilon < 1:
            raise ValueError(f'calibration epsilon={self.epsilon}: expected 0 <= epsilon < 1')
        if self.confidence not in ('max', 'gt'):
            raise ValueError(f'calibration confidence="{self.confidence}": use "max" or "gt"')
        if self.min_keep < 0:
            raise ValueError(f'calibration min_keep={self.min_keep}: expected 0 or more')

    def categories(self, confidences: np.ndarray) -> np.ndarray:
        """Assign ``DISCARD``, ``CONTEXT`` or ``SOFT`` to each crop of ONE image, ``min_keep`` applied: (M,) uint8."""
        low, high = confidences < self.low, confidences > self.high
        category = np.where(confidences < self.mid, CONTEXT, SOFT).astype(np.uint8)
        category[low | high] = DISCARD
        lacking = min(self.min_keep, len(confidences)) - int((category != DISCARD).sum())
        if lacking > 0:
            out = np.flatnonzero(category == DISCARD)
            distance = np.where(low, self.low - confidences, confidences - self.high)[out]
            back = out[np.argsort(distance, kind='stable')[:lacking]]
            category[back] = np.where(low[back], CONTEXT, SOFT)
        return category


def confidences_of(
    stored: np.ndarray, label_type: str, classes: int, confidence: str, ground_truth: int
) -> np.ndarray:
    """Return the teacher confidence of every crop of an image.

    Args:
        stored: (M, *label_shape).
        label_type: any but ``hard``, which holds no probability.
        classes: C.
        confidence: ``'max'`` or ``'gt'``.
        ground_truth: class of the image; only ``'gt'`` looks at it.

    Returns:
        (M,) in the dtype of ``stored``: for ``'max'`` the largest stored probability, for ``'gt'`` that of the
        recovered label.

    Raises:
        ValueError: the label type is ``hard``.
    """
    check_has_confidence(label_type)
    if confidence == 'max':
        if label_type == 'ori':
            return stored.max(axis=1)
        return stored[:, 1] if label_type == 'smoothing' else stored[:, 1].max(axis=1)
    if label_type == 'ori':
        return stored[:, ground_truth]
    labels = sparse_labels(torch.from_numpy(stored), label_type, classes)
    assert isinstance(labels, SparseLabels)
    return labels.probability(ground_truth).numpy().astype(stored.dtype)


def check_has_confidence(label_type: str) -> None:
    """Raise ValueError for ``hard`` labels."""
    if label_type == 'hard':
        raise ValueError(
            'labels of the type "hard" hold no probability: region calibration has no confidence to read'
        )


def calibrated_type(label_type: str) -> str:
    """Label type of calibrated labels: a softened ground truth needs a remainder, which ``marginal_renorm`` has not."""
    return label_type.replace('marginal_renorm', 'marginal_smoothing')


def categories_of(
    stored: np.ndarray, label_type: str, classes: int, ground_truth: int, calibration: RegionCalibration
) -> np.ndarray:
    """Return the categories of all crops of one image: (M,) uint8; see :func:`confidences_of` for the arguments."""
    return calibration.categories(
        confidences_of(stored, label_type, classes, calibration.confidence, ground_truth)
    )


def calibrated_labels(
    stored: np.ndarray,
    label_type: str,
    classes: int,
    ground_truth: int,
    category: np.ndarray,
    epsilon: float,
) -> np.ndarray:
    """Return labels of crops of one image that go with their categories.

    Args:
        stored: (R, *label_shape) floating.
        label_type: any but ``hard``.
        classes: C, at least 2.
        ground_truth: class of the image.
        category: (R,). Rows that are discarded keep their label.
        epsilon: of the softened ground truth.

    Returns:
        (R, *label_shape) of the type ``calibrated_type(label_type)``.
    """
    labels = stored.copy()
    if label_type.startswith('marginal_renorm'):
        labels[:, 1] /= np.maximum(labels[:, 1].sum(axis=1, keepdims=True), 1e-12)
    labels[category == CONTEXT] = softened_ground_truth(
        ground_truth, calibrated_type(label_type), classes, epsilon
    )
    return labels


def softened_ground_truth(ground_truth: int, label_type: str, classes: int, epsilon: float) -> np.ndarray:
    """Store a label with 1 - epsilon for the ground truth and epsilon / (C - 1) for every other class.

    A ``marginal_smoothing`` row names the ground truth and the lowest other ids, so that its remainder is
    epsilon / (C - 1) as well: a calibrated store is an ordinary one.

    Args:
        ground_truth: class id.
        label_type: ``ori``, ``smoothing`` or ``marginal_smoothing_k<k>``.
        classes: C, at least 2.
        epsilon: in [0, 1).

    Returns:
        (*label_shape) float64.
    """
    other = epsilon / (classes - 1)
    if label_type == 'ori':
        dense = np.full(classes, other)
        dense[ground_truth] = 1 - epsilon
        return dense
    if label_type == 'smoothing':
        return np.array([ground_truth, 1 - epsilon])
    k = top_k(label_type)
    others = [i for i in range(k) if i != ground_truth][: k - 1]
    return np.array([[ground_truth, *others], [1 - epsilon, *[other] * (k - 1)]])
