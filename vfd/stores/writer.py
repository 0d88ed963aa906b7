"""Append records to one shard of a store; a killed writer resumes where it stopped."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from vfd.errors import UserError
from vfd.stores.atomic import atomic_write, full_disk_named, sync_folder
from vfd.stores.fingerprint import refuse_changes
from vfd.stores.layout import (
    BLOCK_ROWS,
    Block,
    Field,
    Fields,
    StoreMeta,
    end_line,
    is_merged,
    parse_index_line,
    read_index,
    shard_name,
)
from vfd.stores.ragged import Ragged, RaggedField
from vfd.stores.records import Records, pack_records

try:
    import fcntl
except ImportError:  # Windows: two writers on one shard are then not noticed
    fcntl = None  # type: ignore[assignment]


class StoreWriter:
    """Write one rank's shard, block by block.

    A block counts from the moment its index line is complete: the data are forced to the disk first. Opening
    a shard again cuts whatever lies behind the last complete block, so that after a kill at any byte the
    caller has only to skip the keys in ``done`` and go on, and the finished files equal those of an
    uninterrupted run byte for byte.

    Example:
        >>> with StoreWriter('work_dirs/targets', {'logits': ('float16', (1000,))}, fingerprint) as writer:
        ...     for names, images in batches(skip=writer.done):
        ...         writer.append(names, logits=teacher(images)['logits'])

    Args:
        path: folder of the store, made when absent.
        fields: name -> (dtype name, shape of one record), or ``RaggedField(dtype name, shape of one row)`` where
            records have different numbers of rows.
        fingerprint: plain JSON values that identify the inputs (see ``fingerprint_files``). A store that was
            begun with other values is refused.
        rank: which shard this process writes.
        world_size: number of shards.
        block_rows: records in a block.

    Raises:
        UserError: the store was begun with other inputs, fields or shards, or another process is writing the
            shard.
    """

    def __init__(
        self,
        path: str | Path,
        fields: Fields,
        fingerprint: dict[str, Any],
        rank: int = 0,
        world_size: int = 1,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        assert 0 <= rank < world_size and block_rows > 0
        assert all(np.dtype(field[0]).kind in 'biuf' for field in fields.values()), 'fields hold numbers'
        self.path = Path(path)
        plain = json.loads(json.dumps(fingerprint))  # as it will be read back: tuples become lists
        self.meta = StoreMeta(
            {name: _normalised(field) for name, field in fields.items()}, plain, world_size, block_rows
        )
        for name, described in self.meta.ragged.items():
            assert re.fullmatch(r'[\w.-]+', name), f'a ragged field names a file, {name!r} cannot'
            assert 0 not in described.shape, f'rows of {name!r} hold no number'
        if not (self.path / 'meta.json').exists():
            atomic_write(self.path / 'meta.json', self.meta.to_json())
        self._merged = is_merged(self.path)
        on_disk = StoreMeta.read(self.path)
        if self._merged:  # the number of shards no longer matters
            on_disk = replace(on_disk, world_size=world_size)
        refuse_changes(self.path, _inputs(on_disk), _inputs(self.meta))

        self.done: set[str] = set()
        self._pending_keys: list[str] = []
        self._pending: list[Records] = []  # together one record a pending key
        # Records, and rows of every ragged field, in complete blocks: one number a data file.
        self._written = np.zeros(1 + len(self.meta.ragged), np.int64)
        if self._merged:
            self.done.update(read_index(self.path, 'merged', self.meta)[0])
            return
        name = shard_name(rank, world_size)
        self._data = [open_locked(self.path / f'{name}{suffix}') for suffix in self.meta.files()]
        self._index = open_locked(self.path / f'{name}.jsonl')
        sync_folder(self.path)
        self._recover()

    def append(self, keys: Sequence[str], **arrays: ArrayLike | Ragged) -> None:
        """Add records.

        Args:
            keys: N new keys.
            arrays: every field of the store, each (N, *shape), a ragged one as ``Ragged`` of N records with rows
                (n, *shape); cast to the field's dtype.

        Raises:
            UserError: the disk is full, or the store is merged.
            ValueError: a field is missing, unknown or of another shape, or a key was written before.
        """
        if set(arrays) != set(self.meta.fields):
            raise ValueError(f'fields {sorted(arrays)} were given, the store has {sorted(self.meta.fields)}')
        known = self.done.intersection(keys)
        if known or len(set(keys)) != len(keys):
            raise ValueError(
                f'{self.path}: records were written before or given twice: {sorted(known or keys)[:3]}'
            )
        if self._merged:
            raise UserError(
                f'{self.path} is merged and takes no more records, such as that of {keys[0]!r}. It stays as it is, '
                'without them; to have them too, write all into another folder.'
            )
        records = pack_records(len(keys), arrays, self.meta)
        self._pending_keys.extend(keys)
        self._pending.append(records)
        self.done.update(keys)
        with full_disk_named(self.path):
            while len(self._pending_keys) >= self.meta.block_rows:
                self._write_block(self.meta.block_rows)

    def close(self, finished: bool = True) -> None:
        """Write what is pending; mark the shard as finished if ``finished``. May be called twice."""
        if self._merged or self._index.closed:
            return
        with full_disk_named(self.path):
            if self._pending_keys:
                self._write_block(len(self._pending_keys))
            if finished:
                self._index.write(end_line(int(self._written[0])))
                _sync(self._index)
            for file in (*self._data, self._index):
                file.close()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finished=kind is None)

    def _write_block(self, number: int) -> None:
        records = Records.join(self._pending)
        written = records.part(0, number)
        block = written.block(self._pending_keys[:number])
        for file, chunk in zip(self._data, written.chunks(), strict=True):
            file.write(chunk)
            _sync(file)
        self._index.write(block.to_line())
        _sync(self._index)
        self._written += block.sizes
        self._pending_keys = self._pending_keys[number:]
        self._pending = [records.part(number, len(records))]

    def _recover(self) -> None:
        """Keep the complete blocks, take a short last block back into memory, cut the rest."""
        widths = [dtype.itemsize for dtype in self.meta.files().values()]
        stored = [file.seek(0, os.SEEK_END) // width for file, width in zip(self._data, widths, strict=True)]
        keep = 0  # bytes of the index
        last: Block | None = None  # complete in the index and on the disk, not yet accepted
        lines = self._index.readlines()
        for number, line in enumerate(lines, 1):
            entry = self._parse(line)
            if entry is None and number < len(lines):
                raise UserError(
                    f'{self._index.name}, line {number} is damaged, not merely cut off. '
                    "Delete this shard's files to compute it again."
                )
            if not isinstance(entry, Block) or (self._written + entry.sizes > stored).any():
                break
            last = entry
            if len(entry.keys) < self.meta.block_rows:
                break
            keep += len(line)
            self._written += entry.sizes
            self.done.update(entry.keys)
        if last is not None:
            short = len(last.keys) < self.meta.block_rows
            first = self._written if short else self._written - last.sizes
            chunks = []
            for file, width, begin, size in zip(
                self._data, widths, first.tolist(), last.sizes.tolist(), strict=True
            ):
                file.seek(begin * width)
                chunks.append(file.read(size * width))
            if not last.matches(chunks):  # a power cut can leave the index ahead of the data
                if not short:
                    keep -= len(last.to_line())
                    self._written = first
                    self.done.difference_update(last.keys)
            elif short:
                self._pending_keys = list(last.keys)
                self._pending = [Records.of_chunks(chunks, self.meta)]
                self.done.update(last.keys)
        ends = [int(written) * width for written, width in zip(self._written, widths, strict=True)]
        for file, size in zip((self._index, *self._data), (keep, *ends), strict=True):
            file.truncate(size)
            file.seek(size)

    def _parse(self, line: bytes) -> Block | int | None:
        """Parse a block or the end mark; None when the line is not complete."""
        try:
            return parse_index_line(line, self.meta) if line.endswith(b'\n') else None
        except ValueError:
            return None


def _normalised(field: Field) -> Field:
    """Return a field with numpy's name of the dtype."""
    dtype, shape = np.dtype(field[0]).name, tuple(field[1])
    return RaggedField(dtype, shape) if isinstance(field, RaggedField) else (dtype, shape)


def open_locked(path: Path) -> BinaryIO:
    """Open for reading and writing, made when absent, locked until closed or killed."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), 'r+b')
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise UserError(f'{path} is being written by another process; wait for it or stop it.') from error
    return file


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _inputs(meta: StoreMeta) -> dict[str, Any]:
    """Return everything in which a store on disk may differ from what is to be written."""
    return {
        'fields': meta.fields,
        'shards': meta.world_size,
        'block_rows': meta.block_rows,
        **meta.fingerprint,
    }
