"""Crops of many images for loader processes: which ones, and their pixels chunk by chunk. No network is used."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from vfd.errors import BadDataError
from vfd.stores import LabelStore

from .crops import cut_crop, draw_crops, read_rgb, seeded


@dataclass(frozen=True)
class CropDrawer:
    """Decides boxes and flips of an image: by its name and a seed alone, or as another store has them.

    Attributes:
        crops: of an image M.
        scale: smallest and largest part of the image's area.
        ratio: smallest and largest width / height.
        seed: of the draws.
        reference: a store whose boxes and flips are taken instead.
    """

    crops: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    seed: int
    reference: LabelStore | None = None

    def origin(self) -> dict[str, Any]:
        """Return plain values that decide what is drawn."""
        if self.reference is not None:
            return {'reference': self.reference.origin}
        return {'scale': list(self.scale), 'ratio': list(self.ratio), 'seed': self.seed}

    def draw(self, name: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Draw boxes (M, 4) and flips (M,) of an image of ``size`` (H, W).

        Raises:
            BadDataError: the reference does not have the image, or has another size of it.
            UserError: its record is damaged.
        """
        if self.reference is None:
            with seeded(self.seed, name):
                return draw_crops(size, self.crops, self.scale, self.ratio)
        if name not in self.reference:
            raise BadDataError(f'{name}: the reference {self.reference.folder} has no crops of it')
        index = self.reference.index_of(name)
        if self.reference.image_size(index) != size:
            height, width = self.reference.image_size(index)
            raise BadDataError(
                f'{name}: {size[1]} x {size[0]} pixels, the reference {self.reference.folder} (record {index}) has '
                f'{width} x {height}: the image changed'
            )
        stored = self.reference.read(index)
        return stored.boxes, stored.flip


@dataclass(frozen=True)
class CropChunk:
    """Some crops of an image, or why there are none.

    Attributes:
        name: of the image.
        boxes: of ALL crops of the image, (M, 4).
        flips: of all crops, (M,).
        pixels: for every teacher (N, S, S, 3) uint8 RGB: this chunk's crops.
        size: (H, W) of the image.
        file: size of the file in bytes and CRC-32 of its content.
        fault: why the file cannot be used.
    """

    name: str
    boxes: np.ndarray | None = None
    flips: np.ndarray | None = None
    pixels: tuple[Tensor, ...] = ()
    size: tuple[int, int] = (0, 0)
    file: tuple[int, int] = (0, 0)
    fault: str | None = None


class CropChunks(IterableDataset):
    """Crops of images in chunks, as many of every image, also of one that cannot be used.

    Of W loader processes, process w opens the images w, w + W, w + 2 W, ... and each of them once. A loader takes from
    them in turn, so that it gives the first chunks of the first W images, their second chunks, and so on. Chunks keep
    the memory of a process and what it ships independent of the number of crops.

    Args:
        files: (name, path) of every image.
        drawer: of boxes and flips.
        sizes: side of the crops in pixels for every teacher.
        chunk: crops in a chunk.
    """

    def __init__(
        self, files: Sequence[tuple[str, Path]], drawer: CropDrawer, sizes: Sequence[int], chunk: int
    ) -> None:
        self.files, self.drawer, self.sizes, self.chunk = files, drawer, sizes, chunk

    def __iter__(self) -> Iterator[CropChunk]:
        worker = get_worker_info()
        mine = self.files if worker is None else self.files[worker.id :: worker.num_workers]
        for name, path in mine:
            yield from self._chunks(name, path)

    def _chunks(self, name: str, path: Path) -> Iterator[CropChunk]:
        firsts = range(0, self.drawer.crops, self.chunk)
        try:
            data = path.read_bytes()
            image = read_rgb(data, str(path))
            size = (image.height, image.width)
            boxes, flips = self.drawer.draw(name, size)
        except (OSError, BadDataError) as error:
            reason = f'{path}: {error.strerror}' if isinstance(error, OSError) else str(error)
            yield from [CropChunk(name, fault=reason)] * len(firsts)
            return
        file = len(data), zlib.crc32(data)
        for first in firsts:
            rows = slice(first, first + self.chunk)
            pixels = self._cut(image, boxes[rows], flips[rows])
            yield CropChunk(name, boxes, flips, pixels, size, file)

    def _cut(self, image: Image.Image, boxes: np.ndarray, flips: np.ndarray) -> tuple[Tensor, ...]:
        cut = {
            size: np.stack(
                [cut_crop(image, box, flip, size, 'bicubic') for box, flip in zip(boxes, flips, strict=True)]
            )
            for size in set(self.sizes)
        }
        return tuple(torch.from_numpy(cut[size]) for size in self.sizes)
