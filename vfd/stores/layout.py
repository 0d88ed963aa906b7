"""What a store looks like on disk.

A store is a folder of fixed-width records, each with a string key::

    meta.json                       fields, fingerprint of the inputs, number of shards
    shard-00000-of-00002.bin        records, one after the other, little-endian, no header
    shard-00000-of-00002.jsonl      index: one line a block of records, then one line ``{"end": <records>}``
    merged.bin, merged.jsonl        the same for all shards together, sorted by key (after ``merge``)

A block's index line holds its keys, one CRC-32 a record (over key and data) and the SHA-256 of the block's
data. All blocks but the last have ``block_rows`` records, so the bytes do not depend on how often the writer
was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vfd.errors import UserError

FORMAT = 'vfd-store-1'
BLOCK_ROWS = 256  # what a kill can cost at most, in records
Fields = Mapping[str, tuple[str, tuple[int, ...]]]


class UnfinishedStoreError(UserError):
    """A shard is absent or has no end mark: the step that writes it has not ended."""


@dataclass(frozen=True)
class StoreMeta:
    """Content of ``meta.json``.

    Attributes:
        fields: name -> (numpy dtype name, shape of one record).
        fingerprint: plain values that identify the inputs the records were computed from.
        world_size: number of shards that were written side by side.
        block_rows: records in a block.
    """

    fields: dict[str, tuple[str, tuple[int, ...]]]
    fingerprint: dict[str, Any]
    world_size: int = 1
    block_rows: int = BLOCK_ROWS

    @property
    def dtype(self) -> np.dtype:
        """Structured little-endian dtype of one record."""
        columns = [
            (name, np.dtype(kind).newbyteorder('<'), shape) for name, (kind, shape) in self.fields.items()
        ]
        return np.dtype(columns)

    def to_json(self) -> str:
        """Readable text, equal for equal content."""
        content = {
            'format': FORMAT,
            'fields': {name: [kind, list(shape)] for name, (kind, shape) in self.fields.items()},
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
            if content['format'] != FORMAT:
                raise ValueError(f'its format is {content["format"]!r}, this version reads {FORMAT!r}')
            fields = {name: (kind, tuple(shape)) for name, (kind, shape) in content['fields'].items()}
            return cls(fields, content['fingerprint'], content['world_size'], content['block_rows'])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f'{path} is not the description of a store: {error}') from error


@dataclass(frozen=True)
class Block:
    """One index line: consecutive records of a data file."""

    keys: list[str]
    crc32: list[int]
    sha256: str

    @classmethod
    def of(cls, keys: Sequence[str], records: np.ndarray) -> Block:
        """Describe ``records`` (structured array of length ``len(keys)``)."""
        crcs = [record_crc(key, record.tobytes()) for key, record in zip(keys, records, strict=True)]
        return cls(list(keys), crcs, hashlib.sha256(records.tobytes()).hexdigest())

    def to_line(self) -> bytes:
        """The index line, with its line end."""
        content = {'keys': self.keys, 'crc32': self.crc32, 'sha256': self.sha256}
        return json.dumps(content, separators=(',', ':')).encode() + b'\n'

    def matches(self, data: bytes) -> bool:
        """Whether ``data`` are the bytes of this block."""
        return hashlib.sha256(data).hexdigest() == self.sha256


def record_crc(key: str, data: bytes) -> int:
    """CRC-32 over a record's key and bytes."""
    return zlib.crc32(data, zlib.crc32(key.encode(errors='surrogateescape')))


def end_line(records: int) -> bytes:
    """The index line that marks a finished shard."""
    return b'{"end":%d}\n' % records


def parse_index_line(line: bytes) -> Block | int:
    """A block, or the number of records when ``line`` is the end mark; ValueError when it is neither."""
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError('not an index line')
    if set(content) == {'end'}:
        return int(content['end'])
    if set(content) != {'keys', 'crc32', 'sha256'} or len(content['keys']) != len(content['crc32']):
        raise ValueError('not an index line')
    return Block(content['keys'], content['crc32'], content['sha256'])


def read_index(folder: Path, name: str, meta: StoreMeta) -> tuple[list[str], list[Block]]:
    """The keys and blocks of a finished data file.

    Raises:
        UnfinishedStoreError: the shard is absent or has no end mark.
        UserError: the index is damaged, or the data file has another size.
    """
    index, data = folder / f'{name}.jsonl', folder / f'{name}.bin'
    if not index.exists() or not data.exists():
        raise UnfinishedStoreError(
            f'{folder} is not finished: shard {name} is absent. Run the step that writes it again.'
        )
    keys: list[str] = []
    blocks: list[Block] = []
    end: int | None = None
    with index.open('rb') as file:
        for number, line in enumerate(file, 1):
            try:
                entry = parse_index_line(line)
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
    size = data.stat().st_size
    if end != len(keys) or size != len(keys) * meta.dtype.itemsize:
        whole = min(size // meta.dtype.itemsize, len(keys))
        lost = f'; records from {whole} ({keys[whole]!r}) on are missing' if whole < len(keys) else ''
        raise UserError(
            f'{data} has {size} bytes, its index promises {len(keys)} records of {meta.dtype.itemsize} bytes '
            f'(end mark: {end}){lost}'
        )
    return keys, blocks


def shard_name(rank: int, world_size: int) -> str:
    """File name of a shard, without suffix."""
    return f'shard-{rank:05d}-of-{world_size:05d}'


def is_merged(folder: Path) -> bool:
    """Whether the shards were merged; the index is written last, so it is the sign."""
    return (folder / 'merged.jsonl').exists()


def data_names(folder: Path, meta: StoreMeta) -> list[str]:
    """Names (without suffix) of the data files that make up the store, in rank order."""
    return (
        ['merged'] if is_merged(folder) else [shard_name(r, meta.world_size) for r in range(meta.world_size)]
    )
