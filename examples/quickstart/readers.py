"""Readers of the formats in which small image data sets are published."""

from __future__ import annotations

import gzip
import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vfd.checkpoints.readers import read_npz, read_pickle
from vfd.errors import UserError


def idx(path: Path) -> np.ndarray:
    """Read an array of bytes in the IDX format of MNIST; ``path`` itself or ``path.gz``.

    Raises:
        UserError: the file is damaged or of another kind.
    """
    packed = path.with_name(f'{path.name}.gz')
    path = path if path.exists() else packed
    try:
        data = gzip.decompress(path.read_bytes()) if path == packed else path.read_bytes()
    except (EOFError, gzip.BadGzipFile) as error:
        raise UserError(f'{path} is damaged: {error}') from error
    if len(data) < 8 or data[:3] != b'\0\0\x08':
        raise UserError(f'{path} is no IDX file of bytes (it begins with {data[:4]!r})')
    begin = 4 + 4 * data[3]
    shape = tuple(int(n) for n in np.frombuffer(data[4:begin], '>u4'))
    if len(data) - begin != math.prod(shape):
        raise UserError(f'{path} is damaged: {len(data) - begin} values, its header promises {shape}')
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)


def cifar_batches(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read CIFAR-10's Python batches without running code from them.

    Returns:
        (N, 32, 32, 3) RGB uint8 and (N,) labels.

    Raises:
        UserError: a file is damaged, holds other things than arrays and lists, or is no batch.
    """
    images, labels = [], []
    for path in paths:
        batch = read_pickle(path)
        if not isinstance(batch, dict) or not {'data', 'labels'} <= set(batch):
            raise UserError(f'{path} is no batch of CIFAR-10: it has no "data" and "labels"')
        images.append(np.asarray(batch['data'], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(np.asarray(batch['labels'], np.int64))
    return np.concatenate(images), np.concatenate(labels)


def jpeg_archive(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read a numpy archive of JPEG files: ``jpeg`` (all bytes), ``offset`` (N + 1), ``label`` (N), ``classes``.

    Returns:
        (N, H, W, 3) RGB uint8, (N,) labels, class names.

    Raises:
        UserError: the archive is damaged or lacks an array.
    """
    arrays = read_npz(path)
    if missing := {'jpeg', 'offset', 'label', 'classes'} - set(arrays):
        raise UserError(f'{path} lacks {", ".join(sorted(missing))}; it has {", ".join(sorted(arrays))}')
    data, offset = arrays['jpeg'].tobytes(), arrays['offset'].tolist()
    images = [
        np.asarray(Image.open(io.BytesIO(data[begin:end])).convert('RGB'))
        for begin, end in itertools.pairwise(offset)
    ]
    return np.stack(images), arrays['label'].astype(np.int64), tuple(str(name) for name in arrays['classes'])
