"""Merge the shards of a store, and check every byte of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vfd.errors import MissingFileError, UserError
from vfd.stores.atomic import atomic_path
from vfd.stores.layout import Block, StoreMeta, data_names, end_line, is_merged, read_index, record_crc
from vfd.stores.store import Store, map_records


def merge(path: str | Path) -> None:
    """Turn the finished shards into one data file, sorted by key, and remove the shards.

    The result does not depend on how many shards there were. Interrupted at any point, it can be called
    again; on a merged store it does nothing but remove left-over shards.

    Raises:
        MissingFileError, UserError: as ``Store``; nothing was changed.
    """
    path = Path(path)
    if not is_merged(path):
        store = Store(path)
        order = sorted(store.keys)
        rows = store.meta.block_rows
        with atomic_path(path / 'merged.bin') as data, data.open('wb') as data_file:
            blocks = []
            for first in range(0, len(order), rows):
                keys = order[first : first + rows]
                columns = store.read(keys)
                records = np.zeros(len(keys), store.meta.dtype)
                for name, values in columns.items():
                    records[name] = values
                data_file.write(records.tobytes())
                blocks.append(Block.of(keys, records).to_line())
        with atomic_path(path / 'merged.jsonl') as index:  # last: its presence says that the store is merged
            index.write_bytes(b''.join([*blocks, end_line(len(order))]))
    for shard in path.glob('shard-*-of-*.*'):
        shard.unlink()


def verify(path: str | Path) -> list[str]:
    """Compare every record with its checksum.

    Returns:
        One line a fault, naming file and record; empty when all is well.

    Raises:
        MissingFileError: there is no store at ``path``.
    """
    path = Path(path)
    if not (path / 'meta.json').exists():
        raise MissingFileError(f'no store at {path} (it has no meta.json)')
    try:
        meta = StoreMeta.read(path)
    except UserError as error:
        return [str(error)]
    faults = []
    for name in data_names(path, meta):
        try:
            keys, blocks = read_index(path, name, meta)
        except UserError as error:
            faults.append(str(error))
            continue
        records = map_records(path / f'{name}.bin', meta, len(keys))
        first = 0
        for block in blocks:
            faults.extend(
                _block_faults(path / f'{name}.bin', block, records[first : first + len(block.keys)], first)
            )
            first += len(block.keys)
    return faults


def _block_faults(file: Path, block: Block, records: np.ndarray, first: int) -> list[str]:
    faults = [
        f'{file}: record {first + row} ({key!r}) differs from its checksum'
        for row, (key, crc) in enumerate(zip(block.keys, block.crc32, strict=True))
        if record_crc(key, records[row].tobytes()) != crc
    ]
    if not faults and not block.matches(records.tobytes()):
        faults = [f'{file}: the checksum of records {first} to {first + len(records) - 1} is damaged']
    return faults
