"""Random crops of an image: drawn by torchvision, cut by Pillow, as the released generator and loader do it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import RandomResizedCrop

from vfd.errors import BadDataError
from vfd.stores.label_store import UINT16_MAX

RESAMPLING = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
RATIO = (3 / 4, 4 / 3)


def read_rgb(data: bytes, name: str) -> Image.Image:
    """Decode an image file, without the EXIF rotation: stored boxes refer to the pixels as they are in the file.

    Args:
        data: the whole file.
        name: what to call it in errors.

    Raises:
        BadDataError: the file is empty, truncated, too large or no image.
    """
    if not data:
        raise BadDataError(f'{name}: the file is empty (0 bytes)')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow warns of odd metadata
        try:
            return Image.open(io.BytesIO(data)).convert('RGB')
        except UnidentifiedImageError as error:
            raise BadDataError(f'{name}: not an image, or cut within its header') from error
        except Exception as error:  # each decoder of Pillow raises its own kinds
            raise BadDataError(f'{name}: cannot be decoded: {error}') from error


def is_wide(path: Path) -> bool:
    """Return whether a side exceeds 65535 pixels. JPEG cannot hold such images; of other files the header is read."""
    if path.suffix.lower() in ('.jpg', '.jpeg'):
        return False
    try:
        with Image.open(path) as image:
            return max(image.size) > UINT16_MAX
    except Exception:  # what cannot be read is reported when it is used
        return False


@contextlib.contextmanager
def seeded(seed: int, name: str) -> Iterator[None]:
    """Make torch's random numbers depend on ``seed`` and ``name`` alone inside; outside they go on unchanged."""
    digest = hashlib.sha256(f'{seed}\n{name}'.encode(errors='surrogateescape')).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], 'little') >> 1)
        yield


def draw_crops(
    size: tuple[int, int], crops: int, scale: tuple[float, float], ratio: tuple[float, float] = RATIO
) -> tuple[np.ndarray, np.ndarray]:
    """Draw boxes and flips from torch's random numbers: a box, its flip, the next box.

    Args:
        size: (H, W) of the image in pixels.
        crops: their number M.
        scale: smallest and largest part of the image's area.
        ratio: smallest and largest width / height.

    Returns:
        Boxes (M, 4) int64: top, left, height, width in pixels; flips (M,) bool.
    """
    shape = torch.empty((1, *size), device='meta')  # get_params looks at its size alone
    boxes, flips = np.empty((crops, 4), np.int64), np.empty(crops, bool)
    for row in range(crops):
        boxes[row] = RandomResizedCrop.get_params(shape, list(scale), list(ratio))
        flips[row] = torch.rand(1).item() < 0.5
    return boxes, flips


def cut_crop(
    image: Image.Image,
    box: Sequence[int] | np.ndarray,
    flip: bool,
    size: int,
    interpolation: Literal['bilinear', 'bicubic'],
) -> np.ndarray:
    """Cut one crop, resize it, flip it.

    Args:
        image: RGB.
        box: top, left, height, width in pixels.
        flip: horizontally.
        size: side of the result in pixels.
        interpolation: of the resizing, antialiased: bicubic for the teacher, bilinear for the student.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    top, left, height, width = (int(value) for value in box)
    crop = image.crop((left, top, left + width, top + height)).resize((size, size), RESAMPLING[interpolation])
    if flip:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(crop)
