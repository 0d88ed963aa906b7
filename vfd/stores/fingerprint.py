"""Identify the inputs of an offline step, so that changed inputs are noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vfd.errors import UserError
from vfd.stores.atomic import atomic_write

NOTE = 'made-of.json'


def fingerprint_files(names: Iterable[str], root: str | Path = '') -> dict[str, object]:
    """Return number, total size and digest of a list of files.

    The digest covers names, order and sizes, not contents: reading millions of images twice would cost more
    than the step itself. A missing file counts as size -1.

    Args:
        names: file names, relative to ``root``.
        root: folder in front of the names.

    Returns:
        Plain values ``{'files', 'bytes', 'sha256'}``.
    """
    digest = hashlib.sha256()
    files = total = 0
    for name in names:
        path = Path(root, name)
        size = path.stat().st_size if path.exists() else -1
        digest.update(f'{name}\n{size}\n'.encode(errors='surrogateescape'))
        files += 1
        total += max(size, 0)
    return {'files': files, 'bytes': total, 'sha256': digest.hexdigest()}


def claim_folder(folder: Path, inputs: Mapping[str, Any], suffix: str) -> None:
    """Record in a folder what its files are made of, before the first one is written.

    Args:
        folder: made when absent.
        inputs: plain values that identify the inputs.
        suffix: of the files that are to be written.

    Raises:
        UserError: the folder has such files, made of other or of unknown inputs.
    """
    note = folder / NOTE
    text = json.dumps(inputs, indent=1) + '\n'
    if note.exists():
        refuse_changes(folder, json.loads(note.read_text(encoding='utf-8')), json.loads(text))
    elif (stray := next(folder.rglob(f'*{suffix}'), None)) is not None:
        raise UserError(
            f'{folder} has {stray.relative_to(folder)} and no {NOTE} that says what it was made of: choose another '
            'folder'
        )
    else:
        atomic_write(note, text)


def refuse_changes(folder: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raise UserError naming every input in which a folder's content differs from what is to be written."""
    changed = [f'  {line}' for line in differences(before, after)]
    if changed:
        raise UserError(
            f'{folder} was begun with other inputs:\n' + '\n'.join(changed) + '\n'
            'Records of two kinds are not mixed: choose another folder, or delete this one to begin anew.'
        )


def differences(before: Mapping[str, Any], after: Mapping[str, Any], path: str = '') -> Iterator[str]:
    """Yield every value that differs, in nested settings by its own name."""
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f'{path}{name}.')
        elif old != new:
            yield f'{path}{name}: was {_short(old)}, is {_short(new)}'


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + '...'
