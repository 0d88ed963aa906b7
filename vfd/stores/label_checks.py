"""Check every byte of a label store, and that its content is possible."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vfd.stores.label_store import LabelStore, written_files
from vfd.stores.maintenance import verify
from vfd.stores.progress import Progress

SUM_SLACK = 5e-3  # halves are off by up to 2.3e-4 each


def verify_labels(folder: str | Path) -> list[str]:
    """Compare every record with its checksum and its image.

    Returns:
        One line a fault, naming file and record; empty when all is well.

    Raises:
        MissingFileError: there is no store in ``folder``.
        UserError: the store holds something other than labels.
    """
    faults = verify(folder)
    if faults:
        return faults
    store = LabelStore(folder)
    for index, name in enumerate(store.names):
        for fault in record_faults(store, index):
            faults.append(f'{folder}: record {index} ({name!r}): {fault}')
    return faults


def image_faults(folder: str | Path, images: Mapping[str, Path]) -> list[str]:
    """Compare image files with those that were labelled, by size and CRC-32. Files that are gone are no fault.

    Args:
        folder: of a label store, finished or not.
        images: name in the store -> file; others than the labelled ones are left out.

    Returns:
        One line a fault.
    """
    faults = []
    known = written_files(folder)
    with Progress('comparing images', len(images)) as progress:
        for name, path in images.items():
            progress.advance(1)
            if not known.get(name, (0, 0))[0] or not path.exists():
                continue
            data = path.read_bytes()
            found = len(data), zlib.crc32(data)
            if found != known[name]:
                faults.append(
                    f'{path}: {found[0]} bytes, CRC-32 {found[1]:08x}; it had {known[name][0]} bytes, '
                    f'{known[name][1]:08x}, when it was labelled'
                )
    return faults


def record_faults(store: LabelStore, index: int) -> Iterator[str]:
    """Yield what is impossible in one image's record."""
    stored = store.read(index)
    height, width = store.image_size(index)
    outside = boxes_outside(stored.boxes, (height, width))
    if outside.any():
        row = int(outside.argmax())
        yield f'crop {row} (top, left, height, width {stored.boxes[row].tolist()}) leaves the {width} x {height} image'
    if not -1 <= store.ground_truth(index) < store.classes:
        yield f'ground truth {store.ground_truth(index)} of {store.classes} classes'
    yield from label_faults(stored.labels, store.label_type, store.classes)


def boxes_outside(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which boxes (M, 4) are empty or leave an image of ``size`` (H, W): (M,) bool.

    Released files may hold fractions as half floats, which move an edge by up to a pixel in 512; Pillow fills what lies
    outside with black, and so does training. That much is allowed.
    """
    limit = np.array(size) + np.array(size) // 512
    return (boxes < [0, 0, 1, 1]).any(axis=1) | (boxes[:, :2] + boxes[:, 2:] > limit).any(axis=1)


def label_faults(labels: np.ndarray, label_type: str, classes: int) -> Iterator[str]:
    """Yield what is impossible in stored labels (M, *label_shape)."""
    ids, values = labels[..., None], labels  # hard, dense
    if label_type == 'ori':
        ids = np.zeros((len(labels), 1))
    elif label_type != 'hard':
        ids, values = labels[:, 0].reshape(len(labels), -1), labels[:, 1].reshape(len(labels), -1)
    wrong = (ids < 0) | (ids >= classes) | (ids != np.rint(ids))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        yield f'crop {row}: class {ids[row, column]:g}, there are classes 0 to {classes - 1}'
    if (np.diff(np.sort(ids, axis=1), axis=1) == 0).any():
        yield f'crop {int((np.diff(np.sort(ids, axis=1), axis=1) == 0).any(axis=1).argmax())} names a class twice'
    if label_type != 'hard':
        wrong = ~((values >= 0) & (values <= 1 + SUM_SLACK)).all(axis=1) | (
            values.sum(axis=1) > 1 + SUM_SLACK
        )
        if wrong.any():
            row = int(wrong.argmax())
            yield f'crop {row}: probabilities {values[row, :5].tolist()} with the sum {values[row].sum():g}'
