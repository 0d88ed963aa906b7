"""Soft labels of many crops of every image, packed: one fixed-width record an image.

A :class:`LabelStore` is a store (:mod:`vfd.stores.layout`) whose records hold, for M crops of an image,

==============  ==================  ==============================================================
field           shape, type         what
==============  ==================  ==============================================================
``boxes``       (M, 4) uint16       top, left, height, width in pixels of the image without EXIF
                                    rotation (uint32 where a side may exceed 65535)
``flips``       (ceil(M/8),) uint8  horizontal flips, one bit a crop, the first crop in the high bit
``ids``         (M, k) uint16       classes (uint32 above 65535 classes); absent for dense labels
``values``      (M, k) float32/16   probabilities; (M, C) for dense labels, absent for hard labels
``category``    (M,) uint8          only in calibrated stores: 0 discarded, 1 context, 2 important
``size``        (2,) uint32         height and width of the image
``file``        (2,) uint64         size of the image file in bytes and CRC-32 of its content (0, 0: not known)
``truth``       () int32            ground-truth class, -1 where it is not known
==============  ==================  ==============================================================

The key of a record is the image's file name relative to its data set. 500 crops with five float32 values take
18.7 KiB, with float16 values 13.8 KiB.
"""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from vfd.errors import BadDataError, UserError
from vfd.stores.layout import Block, Fields, StoreMeta, data_names, parse_index_line
from vfd.stores.records import map_records
from vfd.stores.store import Store
from vfd.stores.writer import StoreWriter

KIND = 'labels'
BLOCK_CROPS = 2048  # labels that a kill can cost at most
UINT16_MAX = 65535


@dataclass(frozen=True)
class StoredCrops:
    """Some crops of one image.

    Attributes:
        boxes: (R, 4) int64: top, left, height, width in pixels of the image without EXIF rotation.
        flip: (R,) bool, horizontal flips.
        labels: (R, *label_shape) float32 in the stored form of the label type; int64 (R,) for hard labels.
    """

    boxes: np.ndarray
    flip: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class LabelledImage:
    """One image of a store.

    Attributes:
        name: file name relative to the data set.
        size: (H, W) in pixels.
        crops: all M crops.
        ground_truth: class, -1 where it is not known.
        file: size of the file in bytes and CRC-32 of its content; (0, 0) where they are not known.
        category: (M,) categories of region calibration; None in a store that is not calibrated.
    """

    name: str
    size: tuple[int, int]
    crops: StoredCrops
    ground_truth: int = -1
    file: tuple[int, int] = (0, 0)
    category: np.ndarray | None = None


@dataclass(frozen=True)
class LabelForm:
    """Format of the labels of a store.

    Attributes:
        label_type: name of the label type.
        shape: of one crop's label: (C,) for ``ori``, () for ``hard``, (2,) or (2, k) for ids and values.
        classes: C.
        crops: M.
        values: ``'float32'`` or ``'float16'``.
        wide: boxes of uint32, for images with a side above 65535 pixels.
        calibrated: with categories.
    """

    label_type: str
    shape: tuple[int, ...]
    classes: int
    crops: int
    values: str = 'float32'
    wide: bool = False
    calibrated: bool = False

    def fields(self) -> Fields:
        """Return the fields of a record."""
        dense = self.label_type == 'ori'
        named = self.shape[1:]  # () or (k,)
        fields: dict[str, tuple[str, tuple[int, ...]]] = {
            'boxes': ('uint32' if self.wide else 'uint16', (self.crops, 4)),
            'flips': ('uint8', (-(-self.crops // 8),)),
        }
        if not dense:
            fields['ids'] = ('uint16' if self.classes <= UINT16_MAX else 'uint32', (self.crops, *named))
        if dense or self.shape:
            fields['values'] = (self.values, (self.crops, *(self.shape if dense else named)))
        if self.calibrated:
            fields['category'] = ('uint8', (self.crops,))
        return fields | {'size': ('uint32', (2,)), 'file': ('uint64', (2,)), 'truth': ('int32', ())}

    def pack(self, image: LabelledImage) -> dict[str, np.ndarray]:
        """Pack one image into a record; float16 stores round its values.

        Raises:
            BadDataError: a side of the image does not fit the boxes.
        """
        crops = image.crops
        assert crops.boxes.shape == (self.crops, 4) and crops.labels.shape == (self.crops, *self.shape)
        assert crops.flip.shape == (self.crops,) and (image.category is not None) == self.calibrated
        if not self.wide and max(image.size) > UINT16_MAX:
            raise BadDataError(
                f'{image.name}: {image.size[1]} x {image.size[0]} pixels do not fit boxes of 16 bits. The store was '
                'begun without such an image: begin a new one.'
            )
        record = {
            'boxes': crops.boxes,
            'flips': np.packbits(crops.flip),
            'size': np.array(image.size),
            'file': np.array(image.file, np.uint64),
            'truth': np.array(image.ground_truth),
        }
        if self.label_type == 'ori':
            record['values'] = crops.labels
        elif not self.shape:
            record['ids'] = crops.labels
        else:
            record |= {'ids': crops.labels[:, 0], 'values': crops.labels[:, 1]}
        if image.category is not None:
            record['category'] = image.category
        return record


class LabelStoreWriter:
    """Write one rank's shard of a label store; see :class:`vfd.stores.StoreWriter` for what a kill costs.

    Args:
        folder: of the store, made when absent.
        form: of the labels.
        origin: plain values that identify the source of the labels; a store that was begun with others is refused.
        rank: which shard this process writes.
        world_size: number of shards.

    Raises:
        UserError: the store was begun with other inputs, or another process is writing the shard.
    """

    def __init__(
        self, folder: str | Path, form: LabelForm, origin: dict[str, Any], rank: int = 0, world_size: int = 1
    ) -> None:
        self.folder, self.form = Path(folder), form
        about = {
            'kind': KIND,
            'label_type': form.label_type,
            'label_shape': list(form.shape),
            'classes': form.classes,
        }
        assert not about.keys() & origin.keys()
        rows = max(1, BLOCK_CROPS // form.crops)
        self._writer = StoreWriter(folder, form.fields(), about | origin, rank, world_size, rows)

    @property
    def done(self) -> set[str]:
        """Names of the images that are in the shard already."""
        return self._writer.done

    @property
    def record_bytes(self) -> int:
        """Bytes on disk for an image, without its index entry."""
        return self._writer.meta.record_bytes()

    def append(self, image: LabelledImage) -> None:
        """Add an image.

        Raises:
            BadDataError: a side of the image does not fit the boxes.
            UserError: the disk is full, or the store is merged.
        """
        record = {name: values[None] for name, values in self.form.pack(image).items()}
        self._writer.append([image.name], **record)

    def __enter__(self) -> LabelStoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close(finished=kind is None)


def written_files(folder: str | Path) -> dict[str, tuple[int, int]]:
    """Return the images in a store, finished or not: name -> (bytes, CRC-32) of the image file."""
    folder = Path(folder)
    if not (folder / 'meta.json').exists():
        return {}
    meta = StoreMeta.read(folder)
    found: dict[str, tuple[int, int]] = {}
    for name in data_names(folder, meta):
        data, index = folder / f'{name}.bin', folder / f'{name}.jsonl'
        if not data.exists() or not index.exists():
            continue
        keys: list[str] = []
        with index.open('rb') as lines, contextlib.suppress(ValueError):  # a kill can cut the last line
            for line in lines:
                entry = parse_index_line(line, meta)
                keys += entry.keys if isinstance(entry, Block) else []
        rows = min(len(keys), data.stat().st_size // meta.dtype.itemsize)
        files = map_records(folder, name, meta, [rows]).fixed['file'].tolist()
        found.update({key: (size, crc) for key, (size, crc) in zip(keys, files, strict=False)})
    return found


class LabelStore:
    """A finished label store, memory-mapped; reading a crop touches that crop's bytes.

    The first read of an image compares its whole record with its checksum.

    Example:
        >>> store = LabelStore('work_dirs/labels')
        >>> crops = store.read(store.index_of('n01440764/1.JPEG'), rows=[3, 17])
        >>> crops.boxes, crops.labels  # (2, 4) int64, (2, 2, 5) float32

    Args:
        folder: of the store.

    Attributes:
        folder: of the store.
        names: relative file names of the images.
        label_type: name of the label type.
        classes: number of classes C.
        crops: crops of an image M.
        calibrated: whether region calibration is baked into the labels.
        value_dtype: numpy type of the stored probabilities; None for hard labels.

    Raises:
        MissingFileError: there is no store in ``folder``.
        UserError: a shard is absent, unfinished or truncated, the store holds something other than labels, or, while
            reading, a record differs from its checksum.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._store = Store(folder)
        about = self._store.fingerprint
        if about.get('kind') != KIND:
            raise UserError(f'{folder} is a store of {list(self._store.fields)} and not of labels')
        self.names = self._store.keys
        self.label_type: str = about['label_type']
        self.label_shape: tuple[int, ...] = tuple(about['label_shape'])
        self.classes: int = about['classes']
        self.crops: int = self._store.fields['boxes'][1][0]
        self.calibrated = 'category' in self._store.fields
        values = self._store.fields.get('values')
        self.value_dtype = np.dtype(values[0]) if values else None
        self._parts = [
            (first, {field: np.asarray(part[field]) for field in self._store.fields})
            for first, part in self._store.parts()
        ]

    @property
    def meta(self) -> StoreMeta:
        """Fields and origin."""
        return self._store.meta

    @property
    def form(self) -> LabelForm:
        """The form of a store like this one."""
        values = self.value_dtype.name if self.value_dtype is not None else 'float32'
        wide = self._store.fields['boxes'][0] == 'uint32'
        return LabelForm(
            self.label_type, self.label_shape, self.classes, self.crops, values, wide, self.calibrated
        )

    @property
    def origin(self) -> dict[str, Any]:
        """Where the labels come from, as given to the writer."""
        own = ('kind', 'label_type', 'label_shape', 'classes')
        return {name: value for name, value in self._store.fingerprint.items() if name not in own}

    @property
    def inputs(self) -> dict[str, Any]:
        """Plain values that identify the labels for a step that reads them."""
        return self._store.inputs

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._store

    def __reduce__(self) -> tuple[type[LabelStore], tuple[Path]]:
        return LabelStore, (self.folder,)  # a worker process maps the files again

    def index_of(self, name: str) -> int:
        """Return the number of an image.

        Raises:
            UserError: the store has no such image.
        """
        try:
            return self._store.row(name)
        except KeyError:
            example = f', such as {self.names[0]!r},' if self.names else ''
            raise UserError(
                f'{self.folder} has no labels of "{name}". Its {len(self)} names{example} are relative to the data set '
                'that was labelled: is this the store of another data set?'
            ) from None

    def image_size(self, index: int) -> tuple[int, int]:
        """Return (H, W) of image ``index`` in pixels."""
        height, width = self._field('size', index)
        return int(height), int(width)

    def ground_truth(self, index: int) -> int:
        """Return the class of image ``index``, -1 where it is not known."""
        return int(self._field('truth', index))

    def file(self, index: int) -> tuple[int, int]:
        """Return the size in bytes and CRC-32 of the image's file; (0, 0) where they are not known."""
        size, crc = self._field('file', index)
        return int(size), int(crc)

    def check_file(self, index: int, content: bytes) -> None:
        """Compare an image's file with the one that was labelled.

        Raises:
            UserError: size or content differ.
        """
        size, crc = self.file(index)
        if size and (len(content) != size or zlib.crc32(content) != crc):
            raise UserError(
                f'{self.names[index]} changed after it was labelled: {len(content)} bytes, CRC-32 '
                f'{zlib.crc32(content):08x}; {self.folder} (record {index}) has {size} bytes, {crc:08x}. Restore the '
                'file, or label the images anew.'
            )

    def read(self, index: int, rows: np.ndarray | list[int] | None = None) -> StoredCrops:
        """Read crops of an image.

        Args:
            index: number of the image.
            rows: numbers of R crops, in any order; None reads all.

        Raises:
            UserError: a row does not exist.
        """
        which: Any = slice(None) if rows is None else np.asarray(rows, dtype=np.int64)
        boxes = self._field('boxes', index)
        try:
            boxes = boxes[which].astype(np.int64)
        except IndexError:
            raise UserError(
                f'{self.folder}: record {index} ({self.names[index]}) has crops 0 to {self.crops - 1}, requested '
                f'were {rows}'
            ) from None
        flip = np.unpackbits(self._field('flips', index), count=self.crops).view(bool)[which]
        return StoredCrops(boxes, flip, self._labels(index, which))

    def kept(self, index: int) -> np.ndarray:
        """Return the rows of an image that calibration kept, int64, rising; all rows where none is baked."""
        if not self.calibrated:
            return np.arange(self.crops)
        return np.flatnonzero(self._field('category', index))

    def image(self, index: int) -> LabelledImage:
        """Return everything that the store holds of an image."""
        category = np.array(self._field('category', index)) if self.calibrated else None
        return LabelledImage(
            self.names[index],
            self.image_size(index),
            self.read(index),
            self.ground_truth(index),
            self.file(index),
            category,
        )

    def _field(self, name: str, index: int) -> np.ndarray:
        if not 0 <= index < len(self.names):
            raise IndexError(f'{self.folder}: record {index} of {len(self)}')
        self._store.check(index)
        first, part = next(entry for entry in reversed(self._parts) if entry[0] <= index)
        return part[name][index - first]

    def _labels(self, index: int, which: Any) -> np.ndarray:
        if self.label_type == 'ori':
            return self._field('values', index)[which].astype(np.float32)
        ids = self._field('ids', index)[which]
        if not self.label_shape:
            return ids.astype(np.int64)
        labels = np.empty((len(ids), *self.label_shape), np.float32)
        labels[:, 0] = ids
        labels[:, 1] = self._field('values', index)[which]
        return labels
