"""Check every record of a store, whichever step wrote it."""

from __future__ import annotations

from pathlib import Path

from vfd.errors import MissingFileError, UserError
from vfd.stores import verify, verify_labels
from vfd.stores.label_checks import image_faults
from vfd.stores.label_store import KIND, written_files
from vfd.stores.layout import StoreMeta


def verify_store(folder: str, images: str | None = None) -> list[str]:
    """Check any store: every record against its checksum; in a label store also that it can be true.

    Args:
        folder: of the store.
        images: folder to which a label store's names are relative: the images are compared too.

    Returns:
        One line a fault.
    """
    if not Path(folder, 'meta.json').exists():
        raise MissingFileError(f'no store at {folder} (it has no meta.json)')
    if StoreMeta.read(Path(folder)).fingerprint.get('kind') != KIND:
        if images is not None:
            raise UserError(f'{folder} is no label store: there are no images to compare with it')
        return verify(folder)
    faults = verify_labels(folder)
    if images is not None:
        faults += image_faults(folder, {name: Path(images, name) for name in written_files(folder)})
    return faults
