"""Calibrate stored labels: keep, soften or drop every crop by its confidence, and show what became of the crops.

The method does the work, found in the registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vfd.errors import MissingFileError
from vfd.registry import FUNCTIONS
from vfd.stores import atomic_write


def calibrate(
    store: str,
    out: str,
    settings: dict[str, Any],
    images: str | None = None,
    class_names: str | None = None,
) -> Any:
    """Write a calibrated label store; show what became of the crops.

    Args:
        store: folder of the raw store.
        out: folder of the new one; ``categories.png`` goes there, and ``crops.png`` when ``images`` is given.
        settings: ``thresholds`` or ``quantiles``, ``epsilon``, ``confidence``, ``min_keep``.
        images: folder to which the store's names are relative.
        class_names: text file with one name a line.

    Returns:
        The counts.

    Raises:
        UserError: see ``vfd.methods.ferkd.calibration``.
    """
    names = read_names(class_names)
    summary = FUNCTIONS.get('vfd.calibrate_store')(store, out, settings)
    atomic_write(Path(out, 'categories.png'), FUNCTIONS.get('vfd.calibration_histogram')(summary))
    print(summary.table())
    print(Path(out, 'categories.png'))
    if images is not None:
        atomic_write(
            Path(out, 'crops.png'), FUNCTIONS.get('vfd.calibration_sheet')(store, images, summary, names)
        )
        print(Path(out, 'crops.png'))
    return summary


def read_names(file: str | None) -> Sequence[str]:
    """Read class names from a text file, one a line; none without a file."""
    if file is None:
        return ()
    if not Path(file).is_file():
        raise MissingFileError(f'the file of class names {file} is not there')
    return Path(file).read_text(encoding='utf-8').splitlines()
