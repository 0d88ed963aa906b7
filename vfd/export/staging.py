"""A folder that appears complete or not at all."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from vfd.errors import UserError
from vfd.export.certificate import FILE_NAME
from vfd.stores.atomic import sync_file, sync_folder


@contextlib.contextmanager
def staging_folder(final: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``final``; on success it becomes ``final``, on any exception it is
    removed.

    Args:
        final: the folder of one export. An earlier export there is replaced.

    Raises:
        UserError: ``final`` holds something that is not an export.
    """
    if final.exists() and not (final / FILE_NAME).is_file() and any(final.iterdir()):
        raise UserError(
            f'{final} exists and is no earlier export; name another folder with --out, or remove it'
        )
    created = [folder for folder in (final.parent, *final.parent.parents) if not folder.exists()]
    temporary = final.parent / f'.{final.name}.{secrets.token_hex(4)}.tmp'
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob('*'):
            if file.is_file():
                sync_file(file)
        _replace_folder(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in created:
            with contextlib.suppress(OSError):  # not empty: someone else uses it by now
                folder.rmdir()
        raise
    sync_folder(final.parent)


def _replace_folder(new: Path, final: Path) -> None:
    """Folders cannot be replaced in one step: the old one steps aside first."""
    if not final.exists():
        new.rename(final)
        return
    old = new.with_suffix('.old')
    final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)
