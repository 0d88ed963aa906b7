"""The layout of a store on disk.

A store is a folder of records, each with a string key::

    meta.json                       fields, fingerprint of the inputs, number of shards
    shard-00000-of-00002.bin        fixed-width records, one after the other, little-endian, no header
    shard-00000-of-00002.boxes.bin  rows of the ragged field ``boxes`` of all records, one after the other
    shard-00000-of-00002.jsonl      index: one line a block of records, then one line ``{"end": <records>}``
    merged.bin, merged.jsonl, ...   the same for all shards together, sorted by key (after ``merge``)

In place of a ragged field a fixed-width record holds the number of its rows (uint32).

A block's index line holds its keys, one CRC-32 a record (over key and data), the SHA-256 of the block's data, file
after file, and, where there are ragged fields, the number of rows of each. All blocks but the last have ``block_rows``
records, so the bytes do not depend on how often the writer was interrupted.

A store without ragged fields is of format 1, one with them of format 2.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vfd.errors import UserError
from vfd.stores.ragged import RaggedField

FORMAT, RAGGED_FORMAT = 'vfd-store-1', 'vfd-store-2'
BLOCK_ROWS = 256  # what a kill can cost at most, in records
Field = tuple[str, tuple[int, ...]] | RaggedField
Fields = Mapping[str, Field]


class UnfinishedStoreError(UserError):
    """A shard is absent or has no end mark: the step that writes it has not ended."""


@dataclass(frozen=True)
class StoreMeta:
    """Content of ``meta.json``.

    Attributes:
        fields: name -> (numpy dtype name, shape of one record), or a ``RaggedField``.
        fingerprint: plain values that identify the inputs the records were computed from.
        world_size: number of shards that were written side by side.
        block_rows: records in a block.
    """

    fields: dict[str, Field]
    fingerprint: dict[str, Any]
    world_size: int = 1
    block_rows: int = BLOCK_ROWS

    @property
    def ragged(self) -> dict[str, RaggedField]:
        """The ragged ones among the fields."""
        return {name: field for name, field in self.fields.items() if isinstance(field, RaggedField)}

    @property
    def dtype(self) -> np.dtype:
        """Structured little-endian dtype of one fixed-width record."""
        columns = [
            (name, '<u4', ())
            if name in self.ragged
            else (name, np.dtype(field[0]).newbyteorder('<'), field[1])
            for name, field in self.fields.items()
        ]
        return np.dtype(columns)

    def files(self) -> dict[str, np.dtype]:
        """Return the data files of a shard: suffix -> dtype of a fixed-width record or of a row."""
        rows = {
            f'.{name}.bin': np.dtype((np.dtype(field.dtype).newbyteorder('<'), field.shape))
            for name, field in self.ragged.items()
        }
        return {'.bin': self.dtype, **rows}

    def record_bytes(self, **rows: float) -> int:
        """Return a record's bytes on disk without its index entry, for a (mean) number of rows of each ragged field."""
        fixed, *widths = (dtype.itemsize for dtype in self.files().values())
        return round(fixed + sum(width * rows[name] for name, width in zip(self.ragged, widths, strict=True)))

    def to_json(self) -> str:
        """Return readable text, equal for equal content."""
        content = {
            'format': RAGGED_FORMAT if self.ragged else FORMAT,
            'fields': {
                name: [field[0], list(field[1]), *(['ragged'] if name in self.ragged else [])]
                for name, field in self.fields.items()
            },
            'fingerprint': self.fingerprint,
            'world_size': self.world_size,
            'block_rows': self.block_rows,
        }
        return json.dumps(content, indent=1) + '\n'

    @classmethod
    def read(cls, folder: Path) -> StoreMeta:
        """Read ``folder/meta.json``; UserError when it is not the meta file of a store."""
        path = folder / 'meta.json'
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            if content['format'] not in (FORMAT, RAGGED_FORMAT):
                raise ValueError(
                    f'its format is {content["format"]!r}, this version reads {FORMAT!r} and {RAGGED_FORMAT!r}'
                )
            fields = {name: _field(*described) for name, described in content['fields'].items()}
            meta = cls(fields, content['fingerprint'], content['world_size'], content['block_rows'])
            if bool(meta.ragged) != (content['format'] == RAGGED_FORMAT):
                raise ValueError(
                    f'its format {content["format"]!r} does not go with fields {content["fields"]}'
                )
            return meta
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f'{path} is not the description of a store: {error}') from error


def _field(dtype: str, shape: Iterable[int], kind: str | None = None) -> Field:
    """Parse a field of ``meta.json``."""
    if kind not in (None, 'ragged'):
        raise ValueError(f'a field is {kind!r}')
    return RaggedField(dtype, tuple(shape)) if kind else (dtype, tuple(shape))


@dataclass(frozen=True)
class Block:
    """One index line: consecutive records of a data file."""

    keys: list[str]
    crc32: list[int]
    sha256: str
    rows: dict[str, int] = field(default_factory=dict)  # of every ragged field

    @property
    def sizes(self) -> np.ndarray:
        """How many records the block has, and how many rows of every ragged field: one number a data file."""
        return np.array([len(self.keys), *self.rows.values()], np.int64)

    def to_line(self) -> bytes:
        """Return the index line, with its line end."""
        content = {'keys': self.keys, 'crc32': self.crc32, 'sha256': self.sha256}
        if self.rows:
            content['rows'] = self.rows
        return json.dumps(content, separators=(',', ':')).encode() + b'\n'

    def matches(self, chunks: Iterable[bytes]) -> bool:
        """Return whether ``chunks``, one a data file, are the bytes of this block."""
        return chunks_sha256(chunks) == self.sha256


def chunks_sha256(chunks: Iterable[bytes]) -> str:
    """Return the digest of a block's data, file after file."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def record_crc(key: str, data: bytes) -> int:
    """Compute the CRC-32 over a record's key and bytes."""
    return zlib.crc32(data, zlib.crc32(key.encode(errors='surrogateescape')))


def end_line(records: int) -> bytes:
    """Return the index line that marks a finished shard."""
    return b'{"end":%d}\n' % records


def parse_index_line(line: bytes, meta: StoreMeta) -> Block | int:
    """Parse a block, or the number of records when ``line`` is the end mark; ValueError when it is neither."""
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError('not an index line')
    if set(content) == {'end'}:
        return int(content['end'])
    rows = content.pop('rows', {})
    if set(content) != {'keys', 'crc32', 'sha256'} or len(content['keys']) != len(content['crc32']):
        raise ValueError('not an index line')
    if list(rows) != list(meta.ragged) or not all(isinstance(n, int) and n >= 0 for n in rows.values()):
        raise ValueError(f'rows are {rows}, expected are the numbers of {list(meta.ragged)}')
    return Block(content['keys'], content['crc32'], content['sha256'], rows)


def read_index(folder: Path, name: str, meta: StoreMeta) -> tuple[list[str], list[Block]]:
    """Read the keys and blocks of a finished data file.

    Raises:
        UnfinishedStoreError: the shard is absent or has no end mark.
        UserError: the index is damaged, or the data file has another size.
    """
    index = folder / f'{name}.jsonl'
    data = [folder / f'{name}{suffix}' for suffix in meta.files()]
    if not index.exists() or not all(file.exists() for file in data):
        raise UnfinishedStoreError(
            f'{folder} is not finished: shard {name} is absent. Run the step that writes it again.'
        )
    keys: list[str] = []
    blocks: list[Block] = []
    end: int | None = None
    with index.open('rb') as file:
        for number, line in enumerate(file, 1):
            try:
                entry = parse_index_line(line, meta)
            except ValueError as error:
                raise UserError(f'{index}, line {number} is damaged: {error}') from error
            if isinstance(entry, int):
                end = entry
                continue
            blocks.append(entry)
            keys.extend(entry.keys)
    if end is None:
        raise UnfinishedStoreError(
            f'{folder} is not finished: shard {name} has {len(keys)} records and no end mark. '
            'Run the step that writes it again; it goes on where it stopped.'
        )
    if end != len(keys):
        raise UserError(f'{index} names {len(keys)} records, its end mark promises {end}')
    sizes = sum((block.sizes for block in blocks), np.zeros(len(data), np.int64))
    for path, items, dtype in zip(data, sizes.tolist(), meta.files().values(), strict=True):
        size = path.stat().st_size
        if size != items * dtype.itemsize:
            what = 'records' if dtype.fields else 'rows'
            whole = size // dtype.itemsize
            lost = (
                f'; records from {whole} ({keys[whole]!r}) on are missing'
                if whole < items and dtype.fields
                else ''
            )
            raise UserError(
                f'{path} has {size} bytes, its index promises {items} {what} of {dtype.itemsize} bytes{lost}'
            )
    return keys, blocks


def shard_name(rank: int, world_size: int) -> str:
    """Return the file name of a shard, without suffix."""
    return f'shard-{rank:05d}-of-{world_size:05d}'


def is_merged(folder: Path) -> bool:
    """Return whether the shards were merged; the index is written last, so it is the sign."""
    return (folder / 'merged.jsonl').exists()


def data_names(folder: Path, meta: StoreMeta) -> list[str]:
    """Return the names (without suffix) of the data files that make up the store, in rank order."""
    return (
        ['merged'] if is_merged(folder) else [shard_name(r, meta.world_size) for r in range(meta.world_size)]
    )
