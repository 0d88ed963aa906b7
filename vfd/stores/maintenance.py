"""Merge the shards of a store, and check every byte of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from vfd.errors import MissingFileError, UserError
from vfd.stores.atomic import atomic_path
from vfd.stores.layout import Block, StoreMeta, data_names, end_line, is_merged, read_index, record_crc
from vfd.stores.records import Records, map_records, pack_records
from vfd.stores.store import Store


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
        blocks = []
        with contextlib.ExitStack() as stack:
            paths = [
                stack.enter_context(atomic_path(path / f'merged{suffix}')) for suffix in store.meta.files()
            ]
            with contextlib.ExitStack() as opened:  # closed before they get their names
                files = [opened.enter_context(temporary.open('wb')) for temporary in paths]
                for first in range(0, len(order), rows):
                    keys = order[first : first + rows]
                    records = pack_records(len(keys), store.read(keys), store.meta)
                    for file, chunk in zip(files, records.chunks(), strict=True):
                        file.write(chunk)
                    blocks.append(records.block(keys).to_line())
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
            _, blocks = read_index(path, name, meta)
        except UserError as error:
            faults.append(str(error))
            continue
        begin = np.zeros(1 + len(meta.ragged), np.int64)
        records = map_records(path, name, meta, sum((block.sizes for block in blocks), begin).tolist())
        for block in blocks:
            end = begin + block.sizes
            spans = [slice(*span) for span in zip(begin.tolist(), end.tolist(), strict=True)]
            rows = zip(records.rows.items(), spans[1:], strict=True)
            part = Records(records.fixed[spans[0]], {field: values[span] for (field, values), span in rows})
            faults.extend(_block_faults(path / f'{name}.bin', block, part, spans[0].start))
            begin = end
    return faults


def _block_faults(file: Path, block: Block, records: Records, first: int) -> list[str]:
    last = first + len(records) - 1
    for field, count in block.rows.items():
        if (found := int(records.fixed[field].sum(dtype=np.int64))) != count:
            return [
                f'{file}: records {first} to {last} promise {found} rows of {field!r}, their index {count}: a number '
                'of rows is damaged'
            ]
    faults = [
        f'{file}: record {first + row} ({key!r}) differs from its checksum'
        for row, (key, crc, data) in enumerate(zip(block.keys, block.crc32, records.each(), strict=True))
        if record_crc(key, data) != crc
    ]
    if not faults and not block.matches(records.chunks()):
        faults = [f'{file}: the checksum of records {first} to {last} is damaged']
    return faults
