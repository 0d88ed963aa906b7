"""Choose unlabelled images for distillation: the best-scored k of every class.

Source: SSLD (the paper, section 3.3), made exact by the project: an image belongs to the class of its
    highest score
(the first one of equals); images of a class are ranked by that score, equal scores by their position in the
pool.
"""

from __future__ import annotations

import heapq

import numpy as np

from vfd.errors import UserError


class TopKMiner:
    """Keep the k best images of every class from a stream: O(M log k) time, O(C k) memory.

    Args:
        num_classes: C.
        k: how many images to keep of a class; fewer are kept where fewer were predicted.
    """

    def __init__(self, num_classes: int, k: int) -> None:
        if k < 1 or num_classes < 1:
            raise UserError(f'mining needs k >= 1 and at least one class, got {k} and {num_classes}')
        self.k = k
        self._heaps: list[list[tuple[float, int]]] = [[] for _ in range(num_classes)]

    def add(self, classes: np.ndarray, scores: np.ndarray, indices: np.ndarray) -> None:
        """Offer images.

        Args:
            classes: (N,) predicted class.
            scores: (N,) probability of that class.
            indices: (N,) position in the pool.
        """
        assert np.isfinite(scores).all(), 'scores must be finite'
        rows = zip(classes.tolist(), scores.tolist(), indices.tolist(), strict=True)
        for predicted, score, index in rows:
            heap = self._heaps[predicted]
            entry = (score, -index)  # the smallest entry is the one to go: lowest score, then highest index
            if len(heap) < self.k:
                heapq.heappush(heap, entry)
            elif entry > heap[0]:
                heapq.heapreplace(heap, entry)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the kept images.

        Returns:
            Positions in the pool, class by class, best first, (S,) int64; and how many of each class, (C,)
            int64.
        """
        ranked = [[-index for _, index in sorted(heap, reverse=True)] for heap in self._heaps]
        counts = np.array([len(indices) for indices in ranked], dtype=np.int64)
        return np.array([index for indices in ranked for index in indices], dtype=np.int64), counts


def mine_topk(soft_labels: np.ndarray, keep: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best k images of every class, of a pool that fits into memory.

    Args:
        soft_labels: (M, C) probabilities.
        keep: (M,) bool; False removes an image before the ranking (duplicates of validation images).
        k: how many images to keep of a class.

    Returns:
        As :meth:`TopKMiner.result`.
    """
    miner = TopKMiner(soft_labels.shape[1], k)
    indices = np.flatnonzero(keep)
    classes = soft_labels[indices].argmax(axis=1)
    miner.add(classes, soft_labels[indices, classes], indices)
    return miner.result()
