"""Read a finished store: memory-mapped, by key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vfd.errors import MissingFileError, UserError
from vfd.stores.layout import StoreMeta, data_names, read_index, record_crc


class Store:
    """The records of a finished store. A record is compared with its checksum when it is first read.

    Example:
        >>> targets = Store('work_dirs/targets')
        >>> targets['n01440764/1.JPEG']['logits']  # (1000,) float16

    Args:
        path: folder of the store.

    Attributes:
        keys: all keys, in the order of the records.
        meta: fields, fingerprint, number of shards.

    Raises:
        MissingFileError: there is no store at ``path``.
        UserError: a shard is absent, unfinished or truncated, two shards hold the same key, or, while reading, a
            record differs from its checksum.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / 'meta.json').exists():
            raise MissingFileError(f'no store at {self.path} (it has no meta.json)')
        self.meta = StoreMeta.read(self.path)
        self.keys: list[str] = []
        self._parts: list[np.ndarray] = []  # structured, one a data file
        self._files = [self.path / f'{name}.bin' for name in data_names(self.path, self.meta)]
        crcs: list[int] = []
        for file in self._files:
            keys, blocks = read_index(self.path, file.stem, self.meta)
            self.keys.extend(keys)
            crcs.extend(crc for block in blocks for crc in block.crc32)
            self._parts.append(map_records(file, self.meta, len(keys)))
        self._crcs = np.array(crcs, dtype=np.uint32)
        self._checked = bytearray(len(crcs))  # 1: was read and agrees with its checksum
        self._first = np.cumsum([0, *map(len, self._parts)])  # row at which each part begins
        self._row = {key: row for row, key in enumerate(self.keys)}
        if len(self._row) != len(self.keys):
            raise UserError(
                f'{self.path} holds {len(self.keys) - len(self._row)} keys in more than one shard.'
            )

    @property
    def fields(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name -> (dtype name, shape of one record)."""
        return self.meta.fields

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the records were computed from, as the writer was told."""
        return self.meta.fingerprint

    @property
    def inputs(self) -> dict[str, Any]:
        """Plain values that identify the records for a step that reads them; shards and their order do not count."""
        digest = hashlib.sha256()
        for key, row in sorted(self._row.items()):
            digest.update(f'{key}\n{self._crcs[row]}\n'.encode(errors='surrogateescape'))
        return {'store': self.fingerprint, 'records': digest.hexdigest()}

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: object) -> bool:
        return key in self._row

    def __getitem__(self, key: str) -> dict[str, np.ndarray]:
        """One record, as copies; KeyError when there is none of that key."""
        return {name: values[0] for name, values in self.read([key]).items()}

    def read(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Records of ``keys`` (N), in that order: field -> (N, *shape). KeyError names an absent key."""
        rows = np.array([self._row[key] for key in keys], dtype=np.int64)
        records = np.empty(len(rows), self.meta.dtype)
        for part, first in zip(self._parts, self._first, strict=False):
            inside = (rows >= first) & (rows < first + len(part))
            records[inside] = part[rows[inside] - first]
        for row in rows.tolist():
            self.check(row)
        return {name: np.ascontiguousarray(records[name]) for name in self.meta.fields}

    def row(self, key: str) -> int:
        """Position of a record in ``keys``; KeyError when there is none of that key."""
        return self._row[key]

    def check(self, row: int) -> None:
        """Compare a record with its checksum, once.

        Raises:
            UserError: they differ.
        """
        if self._checked[row]:
            return
        part = int(np.searchsorted(self._first, row, side='right')) - 1
        record = self._parts[part][row - self._first[part]]
        if record_crc(self.keys[row], record.tobytes()) != self._crcs[row]:
            raise UserError(
                f'{self._files[part]}: record {row - self._first[part]} ({self.keys[row]!r}) differs from its '
                f'checksum. `vfd verify {self.path}` names all that do; restore the file, or make the '
                'store anew.'
            )
        self._checked[row] = 1

    def parts(self) -> list[tuple[int, np.ndarray]]:
        """The data files, memory-mapped and not checked: (position of the first record, structured array)."""
        return [(int(first), part) for first, part in zip(self._first, self._parts, strict=False)]

    def array(self, field: str) -> np.ndarray:
        """One field of all records, memory-mapped and not checked: (len(self), *shape), in the order of ``keys``.

        Raises:
            UserError: the store has several shards (merge them first) or no such field.
        """
        if field not in self.meta.fields:
            raise UserError(f'{self.path} has no field {field!r}; it has {list(self.meta.fields)}')
        if len(self._parts) > 1:
            raise UserError(f'{self.path} has {len(self._parts)} shards; call vfd.stores.merge on it first.')
        return self._parts[0][field]


def map_records(path: Path, meta: StoreMeta, records: int) -> np.ndarray:
    """Structured read-only memory map of a data file (an empty array when it has no record)."""
    if records == 0:
        return np.empty(0, meta.dtype)
    return np.memmap(path, dtype=meta.dtype, mode='r', shape=(records,))
