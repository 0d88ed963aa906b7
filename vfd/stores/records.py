"""Some consecutive records of a store in memory, or memory-mapped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vfd.stores.layout import Block, StoreMeta, chunks_sha256, record_crc
from vfd.stores.ragged import Ragged, RaggedField


@dataclass(frozen=True)
class Records:
    """N consecutive records.

    Attributes:
        fixed: (N,) structured array of the fixed fields, and of the number of rows in place of each ragged one.
        rows: ragged field -> (n, *shape), the rows of all N records.
    """

    fixed: np.ndarray
    rows: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.fixed)

    def part(self, first: int, last: int) -> Records:
        """Return records ``first`` to ``last - 1``, as views."""
        rows = {}
        for name, values in self.rows.items():
            counts = self.fixed[name][:last]
            begin, end = int(counts[:first].sum(dtype=np.int64)), int(counts.sum(dtype=np.int64))
            rows[name] = values[begin:end]
        return Records(self.fixed[first:last], rows)

    def each(self) -> Iterator[bytes]:
        """Yield the bytes of every record: its fixed part, then its rows of every ragged field."""
        if not self.rows:
            yield from (record.tobytes() for record in self.fixed)
            return
        ends = [itertools.accumulate(self.fixed[name].tolist(), initial=0) for name in self.rows]
        spans = [itertools.pairwise(end) for end in ends]
        for record, *places in zip(self.fixed, *spans, strict=True):
            values = zip(self.rows.values(), places, strict=True)
            yield b''.join([record.tobytes(), *(rows[begin:end].tobytes() for rows, (begin, end) in values)])

    def block(self, keys: Sequence[str]) -> Block:
        """Return the index entry of these records."""
        crcs = [record_crc(key, record) for key, record in zip(keys, self.each(), strict=True)]
        rows = {name: len(values) for name, values in self.rows.items()}
        return Block(list(keys), crcs, chunks_sha256(self.chunks()), rows)

    def chunks(self) -> list[bytes]:
        """Return the content for each data file, in the order of ``StoreMeta.files``."""
        return [self.fixed.tobytes(), *(values.tobytes() for values in self.rows.values())]

    @classmethod
    def of_chunks(cls, chunks: Sequence[bytes], meta: StoreMeta) -> Records:
        """Reverse ``chunks``."""
        fixed, *rows = (
            np.frombuffer(data, dtype) for data, dtype in zip(chunks, meta.files().values(), strict=True)
        )
        return cls(fixed, dict(zip(meta.ragged, rows, strict=True)))

    @classmethod
    def join(cls, parts: Sequence[Records]) -> Records:
        """Join records, one after the other."""
        if len(parts) == 1:
            return parts[0]
        rows = {name: np.concatenate([part.rows[name] for part in parts]) for name in parts[0].rows}
        return cls(np.concatenate([part.fixed for part in parts]), rows)


def pack_records(number: int, arrays: Mapping[str, Any], meta: StoreMeta) -> Records:
    """Pack arrays into records, cast to the dtypes of the fields.

    Args:
        number: N.
        arrays: of every field (N, *shape), or a ``Ragged`` of N records with rows (n, *shape).
        meta: of the store.

    Raises:
        ValueError: a field has another shape.
    """
    fixed, rows = np.zeros(number, meta.dtype), {}
    for name, field in meta.fields.items():
        values = arrays[name]
        if not isinstance(field, RaggedField):
            fixed[name] = _of_shape(name, values, (number, *field[1]))
            continue
        if not isinstance(values, Ragged) or len(values) != number:
            raise ValueError(f'field {name!r} is ragged: expected is a vfd.stores.Ragged of {number} records')
        fixed[name] = values.counts
        rows[name] = _of_shape(name, values.values, (len(values.values), *field.shape)).astype(
            meta.files()[f'.{name}.bin'].base
        )
    return Records(fixed, rows)


def _of_shape(name: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != shape:
        raise ValueError(f'field {name!r} has shape {array.shape}, expected {shape}')
    return array


def map_records(folder: Path, name: str, meta: StoreMeta, sizes: Sequence[int]) -> Records:
    """Memory-map the data files of a shard, read-only.

    Args:
        folder: of the store.
        name: of the shard, without suffix.
        meta: of the store.
        sizes: records, and rows of every ragged field.
    """
    maps = [
        np.memmap(folder / f'{name}{suffix}', dtype=dtype.base, mode='r', shape=(size, *dtype.shape))
        if size and dtype.itemsize
        else np.empty((size, *dtype.shape), dtype.base)
        for (suffix, dtype), size in zip(meta.files().items(), sizes, strict=True)
    ]
    return Records(maps[0], dict(zip(meta.ragged, maps[1:], strict=True)))
