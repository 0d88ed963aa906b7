"""Read a finished store: memory-mapped, by key."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vfd.errors import MissingFileError, UserError
from vfd.stores.layout import Field, StoreMeta, data_names, read_index, record_crc
from vfd.stores.ragged import Ragged
from vfd.stores.records import Records, map_records


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
        self._parts: list[Records] = []  # one a shard
        self._blocks: list[np.ndarray] = []  # of each part: record and rows at which its blocks begin
        self._names = data_names(self.path, self.meta)
        crcs: list[int] = []
        for name in self._names:
            keys, blocks = read_index(self.path, name, self.meta)
            self.keys.extend(keys)
            crcs.extend(crc for block in blocks for crc in block.crc32)
            ends = np.cumsum(
                [np.zeros(1 + len(self.meta.ragged), np.int64), *(b.sizes for b in blocks)], axis=0
            )
            self._blocks.append(ends)
            self._parts.append(map_records(self.path, name, self.meta, ends[-1].tolist()))
        self._crcs = np.array(crcs, dtype=np.uint32)
        self._checked = bytearray(len(crcs))  # 1: was read and agrees with its checksum
        self._first = np.cumsum([0, *map(len, self._parts)])  # row at which each part begins
        self._row = {key: row for row, key in enumerate(self.keys)}
        if len(self._row) != len(self.keys):
            raise UserError(
                f'{self.path} holds {len(self.keys) - len(self._row)} keys in more than one shard.'
            )

    @property
    def fields(self) -> dict[str, Field]:
        """Name -> (dtype name, shape of one record); a ragged one is a ``RaggedField`` with the shape of one row."""
        return self.meta.fields

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the records were computed from, as given to the writer."""
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
        """Return one record, as copies, (n, *shape) of a ragged field; KeyError when there is none of that key."""
        return {
            name: values.values if isinstance(values, Ragged) else values[0]
            for name, values in self.read([key]).items()
        }

    def read(self, keys: Sequence[str]) -> dict[str, Any]:
        """Read records of ``keys`` (N), in that order: field -> array (N, *shape), or a ``Ragged`` of N records.

        KeyError names an absent key.
        """
        rows = np.array([self._row[key] for key in keys], dtype=np.int64)
        records = np.empty(len(rows), self.meta.dtype)
        for part, first in zip(self._parts, self._first, strict=False):
            inside = (rows >= first) & (rows < first + len(part))
            records[inside] = part.fixed[rows[inside] - first]
        for row in rows.tolist():
            self.check(row)
        ragged = [self._record(row).rows for row in rows.tolist()] if self.meta.ragged else []
        return {
            name: np.ascontiguousarray(records[name])
            if name not in self.meta.ragged
            else Ragged(
                np.concatenate(
                    [np.empty((0, *field[1]), field[0]), *(each[name] for each in ragged)], dtype=field[0]
                ),
                records[name].astype(np.int64),
            )
            for name, field in self.meta.fields.items()
        }

    def row(self, key: str) -> int:
        """Return the position of a record in ``keys``; KeyError when there is none of that key."""
        return self._row[key]

    def check(self, row: int) -> None:
        """Compare a record with its checksum, once.

        Raises:
            UserError: they differ.
        """
        if self._checked[row]:
            return
        (record,) = self._record(row).each()
        if record_crc(self.keys[row], record) != self._crcs[row]:
            part = self._part(row)
            raise UserError(
                f'{self.path / self._names[part]}.bin: record {row - self._first[part]} ({self.keys[row]!r}) differs '
                f'from its checksum. `vfd verify {self.path}` names all that do; restore the file, or make '
                'the store anew.'
            )
        self._checked[row] = 1

    def parts(self) -> list[tuple[int, np.ndarray]]:
        """Return the fixed-width files, memory-mapped, unchecked: (position of the first record, structured array)."""
        return [(int(first), part.fixed) for first, part in zip(self._first, self._parts, strict=False)]

    def array(self, field: str) -> Any:
        """Return one field of all records, memory-mapped and not checked, in the order of ``keys``.

        Returns:
            Array (len(self), *shape), or a ``Ragged`` of all records whose ``values`` are memory-mapped.

        Raises:
            UserError: the store has several shards (merge them first) or no such field.
        """
        if field not in self.meta.fields:
            raise UserError(f'{self.path} has no field {field!r}; it has {list(self.meta.fields)}')
        if len(self._parts) > 1:
            raise UserError(f'{self.path} has {len(self._parts)} shards; call vfd.stores.merge on it first.')
        (part,) = self._parts
        if field in self.meta.ragged:
            return Ragged(part.rows[field], part.fixed[field].astype(np.int64))
        return part.fixed[field]

    def _part(self, row: int) -> int:
        """Return the shard that has a record."""
        return int(np.searchsorted(self._first, row, side='right')) - 1

    def _record(self, row: int) -> Records:
        """Return one record, memory-mapped."""
        part = self._part(row)
        local = int(row - self._first[part])
        records = self._parts[part]
        if not records.rows:
            return Records(records.fixed[local : local + 1], {})
        blocks = self._blocks[part]
        begin, *rows = blocks[np.searchsorted(blocks[:, 0], local, side='right') - 1].tolist()
        ahead = Records(
            records.fixed[begin : local + 1],
            {name: records.rows[name][first:] for name, first in zip(records.rows, rows, strict=True)},
        )
        return ahead.part(local - begin, local - begin + 1)
