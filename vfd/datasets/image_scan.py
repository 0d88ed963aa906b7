"""Scan many images once, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vfd.datasets.image_io import read_image
from vfd.datasets.near_duplicates import perceptual_hash
from vfd.errors import BadDataError


@dataclass(frozen=True)
class Scanned:
    """One image of the scan.

    Attributes:
        number: its position in the list of files.
        pixels: (3, S, S) uint8 BGR, None when the file is bad (or no pixels are needed).
        hash: perceptual hash, 0 when the file is bad.
        fault: why the file cannot be used, None when it can.
    """

    number: int
    pixels: Tensor | None
    hash: int
    fault: str | None = None


class ImageScan(Dataset):
    """Images resized and cropped as a classifier is evaluated, and their perceptual hashes.

    Args:
        files: the images.
        input_size: side S of the central crop in pixels; None gives no pixels.
        crop_pct: S divided by the length to which the shorter side is resized (area when it shrinks, bicubic
            when it grows).
    """

    def __init__(self, files: Sequence[Path], input_size: int | None, crop_pct: float = 0.875) -> None:
        self.files = files
        self.input_size = input_size
        self.crop_pct = crop_pct

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Scanned:
        try:
            image = read_image(self.files[number])
        except BadDataError as error:
            return Scanned(number, None, 0, str(error))
        value = perceptual_hash(image)
        if self.input_size is None:
            return Scanned(number, None, value)
        pixels = central_crop(image, self.input_size, self.crop_pct).transpose(2, 0, 1)
        return Scanned(number, torch.from_numpy(np.ascontiguousarray(pixels)), value)


def scan_batches(scan: ImageScan, batch_size: int, first: int, workers: int) -> DataLoader:
    """Yield batches (lists of ``Scanned``) in order.

    Batch b always holds the images ``b * batch_size`` and following, wherever the scan begins: what a
    network outputs can depend on its batch in the last digit, and a resumed scan should give what an
    uninterrupted one gives.

    Args:
        scan: the images.
        batch_size: images a batch.
        first: image to begin with; the batch that holds it comes first.
        workers: loader processes.
    """
    starts = range(first // batch_size * batch_size, len(scan), batch_size)
    batches = [list(range(start, min(start + batch_size, len(scan)))) for start in starts]
    return DataLoader(scan, batch_sampler=batches, num_workers=workers, collate_fn=list)


def central_crop(image: np.ndarray, size: int, crop_pct: float) -> np.ndarray:
    """Resize the shorter side to ``size / crop_pct`` and cut the centre: (size, size, 3)."""
    height, width = image.shape[:2]
    factor = round(size / crop_pct) / min(height, width)
    new_width, new_height = max(size, round(width * factor)), max(size, round(height * factor))
    mode = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    image = cv2.resize(image, (new_width, new_height), interpolation=mode)
    top, left = (new_height - size) // 2, (new_width - size) // 2
    return image[top : top + size, left : left + size]
