"""Scores on disk: one line a candidate, so that a killed search goes on where it stopped.

It is not a :class:`vfd.stores.Store`, because three things it needs are what a store rules out: a candidate whose
scoring failed is written again under the same key, and the later line counts (keys of a store are written once); ranks
read each other's records while they grow (a shard is readable once it has ended); and an entry is free JSON, with the
reason of a failure as text (a store's fields are numbers of one type). The lock on the file and the comparison of
settings are those of the stores.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from vfd.errors import UserError
from vfd.stores.fingerprint import differences
from vfd.stores.layout import shard_name
from vfd.stores.writer import open_locked

Entry = dict[str, Any]
CUT_OFF = re.compile(rb'[0-9a-f]{0,8}( (\{.*)?)?', re.DOTALL)  # the beginning of a line


class ScoreRecord:
    """An append-only file of JSON lines, each with its checksum; the first line holds the search's fingerprint.

    A last line that a kill has cut is dropped. A file that is damaged, that another process is writing, or that
    belongs to other settings, another teacher or other images is refused. What is marked ``again`` (a failure that
    need not repeat itself, such as full memory) is not known to the next run.

    The ranks of a search write a record each and read those of all.

    Args:
        path: the file; made when absent.
        fingerprint: plain values that have to be the same when a search goes on.

    Raises:
        UserError: the file is refused.
    """

    def __init__(self, path: str | Path, fingerprint: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = open_locked(self.path)
        try:
            self._wanted = json.loads(json.dumps(fingerprint))
            head, self.entries, length = read_record(self.path)
            refuse_other(self.path, head, self._wanted)
            self.refresh()
            self.entries = {name: _kept(entry) for name, entry in self.entries.items()}
        except UserError:
            self._stream.close()
            raise
        self._stream.truncate(length)
        self._stream.seek(length)
        if head is None:
            self._write(self._wanted)

    def add(self, entry: Entry) -> None:
        """Store what was found out about ``entry['candidate']``; it is on the disk when this returns."""
        self._write(entry)
        self.entries[entry['candidate']] = entry

    def refresh(self) -> None:
        """Read the current records of other ranks."""
        for path in record_paths(self.path.parent):
            if path != self.path:
                head, entries, _ = read_record(path)
                refuse_other(path, head, self._wanted)
                self.entries = {**entries, **self.entries}

    def _write(self, entry: Mapping[str, Any]) -> None:
        text = json.dumps(entry).encode()
        self._stream.write(b'%08x %s\n' % (zlib.crc32(text), text))
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def __enter__(self) -> ScoreRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


class StoredScores:
    """All records of a folder, read-only.

    Args:
        folder: of the search.
        fingerprint: as in :class:`ScoreRecord`.

    Raises:
        UserError: a record is refused.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        for path in record_paths(folder):
            head, entries, _ = read_record(path)
            refuse_other(path, head, json.loads(json.dumps(fingerprint)))
            self.entries = {**entries, **self.entries}

    def add(self, entry: Entry) -> None:
        """Raise: what would be added is missing."""
        raise UserError(f'{self.folder}: the record lacks {entry["candidate"]}. Run the search again.')


def record_path(folder: Path, rank: int, world_size: int) -> Path:
    """Return the path of a rank's record."""
    name = 'scores' if world_size == 1 else shard_name(rank, world_size).replace('shard', 'scores')
    return folder / f'{name}.jsonl'


def record_paths(folder: Path) -> list[Path]:
    """Return the paths of the records of all ranks, however many there were."""
    return sorted(folder.glob('scores*.jsonl'))


def read_record(path: Path) -> tuple[Entry | None, dict[str, Entry], int]:
    """Read the head (None in an empty file), the entries by candidate, and the length of whole lines.

    Raises:
        UserError: a line is no line of a record, or was changed.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b'\n') and CUT_OFF.fullmatch(lines[-1]):
        lines.pop()
    found = [_parsed(path, number, line) for number, line in enumerate(lines, 1)]
    for number, entry in enumerate(found[1:], 2):
        if not isinstance(entry.get('candidate'), str):
            raise UserError(f'{path}, line {number} is about no candidate. Give another --work-dir.')
    entries = {entry['candidate']: entry for entry in found[1:]}
    return (found[0] if found else None), entries, sum(map(len, lines))


def _kept(entry: Entry) -> Entry:
    """Return what a later run uses of an entry."""
    if entry.get('again'):
        return {name: value for name, value in entry.items() if name not in ('scores', 'reason', 'again')}
    return entry


def refuse_other(path: Path, head: Entry | None, wanted: Mapping[str, Any]) -> None:
    """Raise UserError when a record was begun with other settings."""
    changed = [] if head is None else list(differences(head, wanted))
    if changed:
        raise UserError(
            f'{path} was begun with other settings:\n  '
            + '\n  '.join(changed)
            + '\nGo on with those, or give another --work-dir.'
        )


def _parsed(path: Path, number: int, line: bytes) -> Entry:
    checksum, _, text = line.rstrip(b'\n').partition(b' ')
    if not re.fullmatch(rb'[0-9a-f]{8}', checksum):
        raise UserError(f'{path}, line {number} is no line of a search record. Give another --work-dir.')
    if checksum != b'%08x' % zlib.crc32(text) or not line.endswith(b'\n'):
        raise UserError(
            f'{path}, line {number} is damaged, not merely cut off. Delete the file to score again.'
        )
    entry = json.loads(text)
    if not isinstance(entry, dict):
        raise UserError(f'{path}, line {number} is no line of a search record. Give another --work-dir.')
    return entry
