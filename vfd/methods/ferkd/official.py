"""Label stores from and to the files of the released code: one ``.tar`` (a file of ``torch.save``) an image.

Such a file holds ``[coords, flip, labels]``: boxes as fractions (M, 4) of the image, flips (M,), labels in stored
form. It lies where its image lies below the image folder: ``n01440764/1.JPEG`` has ``n01440764/1.tar``.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from vfd.checkpoints.readers import read_torch
from vfd.datasets.image_lists import list_images
from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.losses import label_shape
from vfd.offline.step import Step
from vfd.registry import FUNCTIONS
from vfd.stores import (
    LabelForm,
    LabelledImage,
    LabelStore,
    LabelStoreWriter,
    Progress,
    StoredCrops,
    atomic_write,
    fingerprint_files,
)
from vfd.stores.fingerprint import claim_folder
from vfd.stores.label_checks import boxes_outside, label_faults

from .core import DISCARD, SOFT, boxes_to_fractions, fractions_to_boxes
from .crops import is_wide, read_rgb

HALF_IDS = 2048  # half floats hold every integer up to here


@FUNCTIONS.register_module()
def official_to_store(
    files: str | Path,
    images: str | Path,
    out: str | Path,
    classes: int,
    label_type: str | None = None,
    values: str = 'float32',
) -> list[str]:
    """Make a label store of the released layout.

    Ground truth is the number of the image's folder among the class folders, the folders in ``images``, in the order of
    their names, as ``ImageFolder`` counts; -1 for images without one. Files with fewer crops than others, which a
    calibration left, become a calibrated store.

    Args:
        files: folder of the ``.tar`` files.
        images: folder of the images, whose sizes turn fractions into pixels.
        out: folder of the store. Interrupted, the conversion goes on.
        classes: C.
        label_type: default: by the shape of the labels; ``marginal_smoothing`` for ids and values of k classes.
        values: ``float32`` or ``float16``.

    Returns:
        Images without a file, or that cannot be read, with the reason; they are left out.

    Raises:
        MissingFileError: a folder is not there, or no image has a file.
        UserError: a file of another form, or with numbers that cannot be true, named with its row; more class folders
            than classes, images deeper than class folders, or two images that share a file.
    """
    names = list_images(str(images))
    paired = {name: tar for name in names if (tar := Path(files, name).with_suffix('.tar')).exists()}
    if not paired:
        raise MissingFileError(f'{files} has no file for any of the {len(names)} images of {images}')
    _refuse_shared(paired, list(paired.values()))
    numbers = _class_numbers(Path(images), paired, classes)
    most, fewest = _count_crops(list(paired.values()))
    first = next(iter(paired.values()))
    label_type = label_type or _type_of(read_official(first)[2], classes)
    try:
        shape = label_shape(label_type, classes)
    except UserError as error:
        raise UserError(f'{first}: {error}') from None
    wide = any(is_wide(Path(images, name)) for name in paired)
    form = LabelForm(label_type, shape, classes, most, values, wide, calibrated=fewest < most)
    origin = {
        'converted': fingerprint_files([p.relative_to(files).as_posix() for p in paired.values()], files)
    }
    left_out = [f'{name}: no label file' for name in names if name not in paired]
    with (
        LabelStoreWriter(out, form, origin) as writer,
        Step('converting').run(len(paired), len(writer.done), writer.record_bytes) as progress,
    ):
        for name, tar in paired.items():
            if name in writer.done:
                continue
            truth = numbers.get(PurePosixPath(name).parts[0], -1)
            try:
                writer.append(_one_image(name, Path(images, name), tar, truth, form))
            except BadDataError as error:
                left_out.append(str(error))
            progress.advance(1)
    return left_out


@FUNCTIONS.register_module()
def store_to_official(folder: str | Path, out: str | Path) -> int:
    """Write a label store in the released layout; of a calibrated store the kept crops.

    Files that exist are not written again, so that an interrupted conversion of the same store goes on.

    Args:
        folder: of the store.
        out: folder of the ``.tar`` files.

    Returns:
        Number of images.

    Raises:
        UserError: two images share a file, ``out`` has files of another store, or the disk is full.
    """
    store = LabelStore(folder)
    paths = [Path(out, name).with_suffix('.tar') for name in store.names]
    _refuse_shared(store.names, paths)
    claim_folder(Path(out), store.inputs, '.tar')
    with Progress('converting', len(store)) as progress:
        for index, path in enumerate(paths):
            if not path.exists():
                kept = store.kept(index)
                crops = store.read(index, kept)
                coords = boxes_to_fractions(crops.boxes, store.image_size(index))
                content = [torch.from_numpy(part) for part in (coords, crops.flip, crops.labels)]
                write_torch(path, content)
            progress.advance(1)
    return len(store)


def write_torch(path: Path, content: list) -> None:
    """Write a file of ``torch.save``, completely or not at all: the same bytes wherever it lies."""
    buffer = io.BytesIO()  # torch's own writer has an error of its own for a full disk
    torch.save(content, buffer)
    atomic_write(path, buffer.getvalue())


def read_official(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read one file; only numpy arrays and tensors are admitted in it.

    Args:
        path: the file.

    Returns:
        Fractions (M, 4) float32, flips (M,) bool, labels (M, ...) float32, int64 for hard labels.

    Raises:
        UserError: it holds code, is damaged, or does not hold these three.
    """
    content = read_torch(path)
    if not isinstance(content, (list, tuple)) or len(content) != 3:
        held = f'{len(content)} entries' if isinstance(content, (list, tuple)) else type(content).__name__
        raise UserError(f'{path} holds {held}; expected the list [coords, flip, labels]')
    coords, flips, labels = (_array(part, path) for part in content)
    crops = len(coords)
    if coords.shape != (crops, 4) or flips.shape != (crops,) or labels.shape[:1] != (crops,) or not crops:
        raise UserError(
            f'{path}: coords {coords.shape}, flip {flips.shape} and labels {labels.shape} do not fit together; '
            'expected (M, 4), (M,) and (M, ...)'
        )
    if labels.dtype == np.float16 and labels.ndim > 1 and labels[:, 0].max() > HALF_IDS:
        raise UserError(
            f'{path}: class ids above {HALF_IDS} as half floats are not exact; the labels are lost'
        )
    labels = labels.astype(np.int64) if labels.ndim == 1 else labels.astype(np.float32)
    return coords.astype(np.float32), flips.astype(bool), labels


def _refuse_shared(names: Iterable[str], tars: Sequence[Path]) -> None:
    """Raise UserError when two images differ in their suffix alone, so that one file would be that of both."""
    image_of: dict[Path, str] = {}
    for name, tar in zip(names, tars, strict=True):
        if (other := image_of.setdefault(tar, name)) != name:
            raise UserError(f'{other} and {name} differ in their suffix alone and would share {tar}')


def _class_numbers(images: Path, names: Iterable[str], classes: int) -> dict[str, int]:
    """Return class folder -> its number."""
    deep = next((name for name in names if name.count('/') > 1), None)
    if deep is not None:
        raise UserError(
            f'{images / deep} lies deeper than a class folder, whose number is the ground truth: give the folder of '
            'the class folders, such as data/imagenet/train, and the folder of the files that goes with it'
        )
    folders = sorted(entry.name for entry in images.iterdir() if entry.is_dir() and entry.name[0] != '.')
    if len(folders) > classes:
        raise UserError(
            f'{images} has {len(folders)} folders ({", ".join(folders[:3])}, ...), there are {classes} classes: every '
            'folder counts as a class, so move away those that are none'
        )
    return {folder: number for number, folder in enumerate(folders)}


def _one_image(name: str, path: Path, tar: Path, truth: int, form: LabelForm) -> LabelledImage:
    coords, flips, labels = read_official(tar)
    if labels.shape[1:] != form.shape:
        raise UserError(
            f'{tar}: labels {labels.shape[1:]} a crop, expected {form.shape} ("{form.label_type}")'
        )
    for fault in label_faults(labels, form.label_type, form.classes):
        raise UserError(f'{tar}: {fault}')
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadDataError(f'{path}: {error.strerror}') from error
    image = read_rgb(data, str(path))
    size = (image.height, image.width)
    boxes = fractions_to_boxes(coords, size)
    outside = boxes_outside(boxes, size)
    if outside.any():
        row = int(outside.argmax())
        raise UserError(f'{tar}, row {row}: the box {coords[row].tolist()} leaves the image')
    category = None
    if form.calibrated:
        category = np.where(np.arange(form.crops) < len(boxes), SOFT, DISCARD).astype(np.uint8)
    fill = np.minimum(
        np.arange(form.crops), len(boxes) - 1
    )  # rows that are missing repeat the last one, discarded
    crops = StoredCrops(boxes[fill], flips[fill], labels[fill])
    return LabelledImage(name, size, crops, truth, (len(data), zlib.crc32(data)), category)


def _count_crops(tars: Sequence[Path]) -> tuple[int, int]:
    counts = []
    with Progress('counting crops', len(tars)) as progress:
        for tar in tars:
            counts.append(len(read_official(tar)[0]))
            progress.advance(1)
    return max(counts), min(counts)


def _type_of(labels: np.ndarray, classes: int) -> str:
    if labels.ndim == 1:
        return 'hard'
    if labels.ndim == 3:
        return f'marginal_smoothing_k{labels.shape[2]}'
    return 'ori' if labels.shape[1] == classes else 'smoothing'


def _array(part: Any, path: Path) -> np.ndarray:
    """Convert a tensor, an array, or a list of them."""
    try:
        if isinstance(part, torch.Tensor):
            return part.detach().cpu().numpy()
        return np.stack([np.asarray(item) for item in part]) if isinstance(part, list) else np.asarray(part)
    except (ValueError, TypeError) as error:
        raise UserError(f'{path} holds something other than arrays of numbers: {error}') from None
