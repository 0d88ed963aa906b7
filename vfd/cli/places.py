"""Where configs, tools and examples lie: in the repository, or in ``vfd/.mim`` of an installed wheel."""

from __future__ import annotations

import sys
from pathlib import Path

import vfd


def place(name: str) -> Path:
    """Folder ``configs``, ``tools`` or ``examples`` of this installation."""
    package = Path(vfd.__file__).parent
    packaged = package / '.mim' / name
    return packaged if packaged.is_dir() else package.parent / name


def find_examples() -> None:
    """Make the packages of ``examples`` importable."""
    folder = str(place('examples'))
    if folder not in sys.path:
        sys.path.insert(0, folder)
