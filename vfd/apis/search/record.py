"""Scores on disk: one line a candidate, so that a killed search goes on where it stopped."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from vfd.errors import UserError


class ScoreRecord:
    """An append-only file of JSON lines, each with its checksum; the first line says what was searched for.

    A line that a kill has cut is dropped. A file that belongs to other settings, another teacher or other images is
    refused.

    Args:
        path: the file; made when absent.
        fingerprint: plain values that have to be the same when a search goes on.
    """

    def __init__(self, path: str | Path, fingerprint: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.entries: dict[str, dict[str, Any]] = {}
        wanted = json.loads(json.dumps(fingerprint))
        lines, length = _sound_lines(self.path)
        if lines:
            if lines[0] != wanted:
                raise UserError(
                    f'{self.path} was begun with other settings ({_difference(lines[0], wanted)}). Go on with those, '
                    'or give another --work-dir.'
                )
            for entry in lines[1:]:
                self.entries[entry['candidate']] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.path.open('r+b' if self.path.exists() else 'w+b')
        self._stream.truncate(length)
        self._stream.seek(length)
        if not lines:
            self._write(wanted)

    def add(self, entry: dict[str, Any]) -> None:
        """Store what was found out about ``entry['candidate']``; it is on the disk when this returns."""
        self._write(entry)
        self.entries[entry['candidate']] = entry

    def _write(self, entry: dict[str, Any]) -> None:
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


def _sound_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines of the file up to the first unsound one, and their length in bytes."""
    if not path.exists():
        return [], 0
    lines, length = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        checksum, _, text = line.rstrip(b'\n').partition(b' ')
        if not line.endswith(b'\n') or checksum != b'%08x' % zlib.crc32(text):
            break
        lines.append(json.loads(text))
        length += len(line)
    return lines, length


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ', '.join(f'{name}: {old.get(name)} then, {new.get(name)} now' for name in names)[:400]
