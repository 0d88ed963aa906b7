"""Read images as they come: odd formats are converted, broken files are named.

Pixels are decoded by OpenCV, exactly as ``mmcv.LoadImageFromFile`` decodes them. What is added is the check
that the file is complete: depending on its version, OpenCV fills the missing part of a truncated JPEG with
grey and says nothing.

==================  ========================================================================
file                what comes out, always (H, W, 3) uint8 BGR
==================  ========================================================================
grayscale, palette  three channels
RGBA, LA            the alpha channel is dropped, not blended (as OpenCV does)
16 bit              scaled to 8 bit (divided by 256), not clipped
CMYK                converted
animated            the first frame
EXIF orientation    applied
ICO, TGA            formats that only Pillow reads: converted through RGB
float, 32 bit       refused: their range is not known
==================  ========================================================================
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import LoadImageFromFile
from PIL import Image, ImageOps, UnidentifiedImageError

from vfd.errors import BadDataError
from vfd.registry import TRANSFORMS

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp', '.gif')


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """Read ``img_path`` into ``img``, ``img_shape`` and ``ori_shape``, or raise ``BadDataError``.

    A drop-in for ``LoadImageFromFile``: healthy files give the same pixels and keys.

    Args:
        to_float32: give float32 instead of uint8 (same values).
        backend_args: settings of mmengine's file backend.
    """

    def __init__(self, to_float32: bool = False, *, backend_args: dict | None = None) -> None:
        super().__init__(
            to_float32=to_float32, color_type='color', imdecode_backend='cv2', backend_args=backend_args
        )

    def transform(self, results: dict) -> dict:
        """Fill in the image.

        Args:
            results: has ``img_path``.

        Raises:
            BadDataError: the file is absent, empty, truncated, too large, or not an image.
        """
        image = read_image(results['img_path'], self.backend_args)
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


def read_image(path: str | Path, backend_args: dict | None = None) -> np.ndarray:
    """Read one file: (H, W, 3) uint8 BGR, see the module's table.

    Raises:
        BadDataError: naming the file and the reason.
    """
    try:
        data = fileio.get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise BadDataError(f'{path}: no such file') from error
    except IsADirectoryError as error:
        raise BadDataError(f'{path}: is a folder') from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode the content of an image file.

    Args:
        data: the whole file.
        name: what to call it in errors.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        BadDataError: naming ``name`` and the reason.
    """
    if not data:
        raise BadDataError(f'{name}: the file is empty (0 bytes)')
    image = _open(data, name)
    if image.mode == 'F' or (image.mode == 'I' and image.format != 'PPM'):  # Pillow reads 16-bit PGM as "I"
        kind = f'{image.format}, mode {image.mode}'
        raise BadDataError(f'{name}: pixels of 32 bit ({kind}), their range is unknown')
    _check_complete(image, data, name)
    pixels = mmcv.imfrombytes(data, flag='color', backend='cv2')
    return pixels if pixels is not None else _decode_with_pillow(data, name)


def _open(data: bytes, name: str) -> Image.Image:
    """Read the header; refuse what is not an image and images that would not fit into memory."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow warns of odd metadata and, below, of large images
        try:
            image = Image.open(io.BytesIO(data))
        except UnidentifiedImageError as error:
            raise BadDataError(f'{name}: not an image, or cut within its header') from error
        except Image.DecompressionBombError as error:
            raise BadDataError(f'{name}: too large: {error}') from error
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise BadDataError(f'{name}: cannot be read: {error}') from error
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise BadDataError(f'{name}: too large: {image.width} x {image.height} pixels, the limit is {limit}')
    return image


def _check_complete(image: Image.Image, data: bytes, name: str) -> None:
    """Raise BadDataError when the file is cut or its checksums are wrong.

    JPEG and PNG, nearly all files, are checked without decoding them a second time.
    """
    if image.format in ('JPEG', 'MPO'):
        if not _has_end_marker(data):
            raise BadDataError(f'{name}: truncated JPEG (no end marker)')
    elif image.format == 'PNG':
        with _pillow_errors(name):
            image.verify()  # walks over all chunks and their checksums
    else:
        with _pillow_errors(name):
            image.load()


def _decode_with_pillow(data: bytes, name: str) -> np.ndarray:
    """Decode a format that OpenCV does not support."""
    image = _open(data, name)
    with _pillow_errors(name):
        image = ImageOps.exif_transpose(image).convert('RGB')
    return np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


@contextlib.contextmanager
def _pillow_errors(name: str) -> Iterator[None]:
    """Turn what a decoder of Pillow raises into BadDataError; each decoder has its own kinds."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            yield
        except Exception as error:
            raise BadDataError(f'{name}: truncated or damaged: {error}') from error


def _has_end_marker(data: bytes) -> bool:
    """Return whether a JPEG's compressed data end with the marker EOI.

    The segments before them are skipped by their lengths, because an embedded preview has an EOI of its own.
    """
    position = 2  # behind SOI
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], 'big')
        if marker == 0xDA:  # start of scan; its data have no length, and no FF D9 but the end
            return data.rfind(b'\xff\xd9', position) >= 0  # from the end, where it usually is
    return False
