"""Identify the inputs of an offline step, so that changed inputs are noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def fingerprint_files(names: Iterable[str], root: str | Path = '') -> dict[str, object]:
    """Number, total size and digest of a list of files.

    The digest covers names, order and sizes, not contents: reading millions of images twice would cost more
    than the step itself. A file that is not there counts as size -1.

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
