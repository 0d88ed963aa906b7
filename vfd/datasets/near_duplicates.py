"""Find images that show the same picture as an image of another set: perceptual hashes first, SIFT on hits
only.

SSLD (the paper, section 3.3) removes from the pool what matches the validation set by SIFT; its thresholds
are not published, those here are project defaults. Comparing every pair by SIFT would take years for
millions of images: a 64-bit hash finds the few pairs that are worth it. Re-encoded, resized, slightly
cropped or recoloured copies are found; mirrored copies and crops of a small part are not, because their
hashes are far apart.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vfd.datasets.image_io import read_image

HASH_SIDE = 32  # pixels; the image is resized to this before hashing
SIFT_SIDE = 320  # pixels of the longer side, for speed and so that small images have key points at all
LOWE_RATIO = 0.75  # a match must be this much nearer than the second nearest
MAX_PIXEL_DIFFERENCE = 4.0  # of 255, for images without key points


def perceptual_hash(image: np.ndarray) -> int:
    """Compute a 64-bit hash that changes little when the image is resized, re-encoded or recoloured.

    Bits say which of the 8 x 8 lowest cosine frequencies, the constant left out, lie above their median.

    Args:
        image: (H, W, 3) uint8 BGR.
    """
    spectrum = cv2.dct(_thumbnail(image))
    low = np.round(
        spectrum[1:9, 1:9].ravel(), 2
    )  # rounded: plain images have no frequencies but numerical noise
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), 'big')


class HashIndex:
    """Find all hashes within a Hamming distance.

    The 64 bits are cut into ``max_distance + 1`` bands. Two hashes that differ in at most ``max_distance``
    bits agree in one band at least, so only hashes in the same bucket of some band are compared; the result
    is exact.

    Args:
        hashes: (V,) uint64.
        max_distance: largest number of differing bits, 0 to 63.
    """

    def __init__(self, hashes: np.ndarray, max_distance: int) -> None:
        self.hashes = hashes.astype(np.uint64)
        self.max_distance = max_distance
        edges = [round(i * 64 / (max_distance + 1)) for i in range(max_distance + 2)]
        self._bands = [(start, (1 << (stop - start)) - 1) for start, stop in itertools.pairwise(edges)]
        self._buckets: list[dict[int, list[int]]] = [{} for _ in self._bands]
        for row, value in enumerate(self.hashes.tolist()):
            for (start, mask), buckets in zip(self._bands, self._buckets, strict=True):
                buckets.setdefault(value >> start & mask, []).append(row)

    def near(self, value: int) -> list[tuple[int, int]]:
        """Return (distance, row) of all hashes within ``max_distance`` of ``value``, nearest first."""
        rows = {
            row
            for (start, mask), buckets in zip(self._bands, self._buckets, strict=True)
            for row in buckets.get(value >> start & mask, ())
        }
        found = [((int(self.hashes[row]) ^ value).bit_count(), row) for row in rows]
        return sorted(pair for pair in found if pair[0] <= self.max_distance)


@dataclass(frozen=True)
class Features:
    """Features by which two images are compared.

    Attributes:
        thumbnail: (32, 32) float32 grey values.
        points: (K, 2) float32 positions of SIFT key points in pixels.
        descriptors: (K, 128) float32.
    """

    thumbnail: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray


class SiftComparison:
    """Decide whether two images show the same picture.

    SIFT key points are matched (ratio test), and matches must agree on one shift, scale and rotation
    (RANSAC). Plain images, which have too few key points, are compared by the grey values of their
    thumbnails.

    Args:
        min_matches: how many matches must agree.
    """

    def __init__(self, min_matches: int) -> None:
        self.min_matches = min_matches
        self._sift = cv2.SIFT.create(500)
        self._matcher = cv2.BFMatcher(cv2.NORM_L2)
        self.features = functools.lru_cache(maxsize=256)(self._features)

    def same(self, first: Path, second: Path) -> bool:
        """Return whether the two files show the same picture. BadDataError when one cannot be read."""
        a, b = self.features(first), self.features(second)
        if min(len(a.points), len(b.points)) < self.min_matches:
            return float(np.abs(a.thumbnail - b.thumbnail).mean()) <= MAX_PIXEL_DIFFERENCE
        return self._agreeing_matches(a, b) >= self.min_matches

    def _agreeing_matches(self, a: Features, b: Features) -> int:
        pairs = [pair for pair in self._matcher.knnMatch(a.descriptors, b.descriptors, k=2) if len(pair) == 2]
        good = [best for best, second in pairs if best.distance < LOWE_RATIO * second.distance]
        if len(good) < self.min_matches:
            return 0
        source = a.points[[match.queryIdx for match in good]]
        target = b.points[[match.trainIdx for match in good]]
        _, inliers = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=5.0)
        return 0 if inliers is None else int(inliers.sum())

    def _features(self, path: Path) -> Features:
        image = read_image(path)
        factor = SIFT_SIDE / max(image.shape[:2])
        gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        size = tuple(max(1, round(side * factor)) for side in gray.shape[::-1])
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
        points, descriptors = self._sift.detectAndCompute(gray, None)
        if descriptors is None:
            descriptors = np.zeros((0, 128), np.float32)
        positions = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
        return Features(_thumbnail(image), positions, descriptors)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return cv2.resize(gray, (HASH_SIDE, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
