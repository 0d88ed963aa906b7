"""Write a file completely or not at all.

A file that another step will read is first written under a temporary name in the same folder, forced to the
disk, and then renamed over the final name. A reader therefore sees the old content or the new one, never a
mixture, whatever happens in between (full disk, kill -9, power cut).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from vfd.errors import DiskFullError


@contextlib.contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn the system's "no space left" while ``path`` is written into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f'the disk is full: {path} could not be written ({error.strerror}). What was written before is safe: '
            'free some space and run the same command again.'
        ) from error


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path``, on any exception it is removed.

    The folder is created when absent. The temporary name keeps the suffix of ``path``, because writers such
    as ``numpy.savez`` and ``PIL`` choose the format by it.

    Args:
        path: the final file.

    Yields:
        A path that does not exist yet; the caller writes the file there.

    Raises:
        DiskFullError: the disk is full; ``path`` is then untouched.
        OSError: the folder cannot be written; as well.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.tmp{path.suffix}')
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            sync_file(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8, line ends as given) to ``path``, completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode('utf-8') if isinstance(data, str) else data)


def sync_file(path: Path) -> None:
    """Force the content of ``path`` to the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Force the names in ``folder`` to the disk, where the system can (Windows cannot open folders)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
