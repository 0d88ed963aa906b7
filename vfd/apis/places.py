"""Where configs, tools and examples lie: in the repository, or in ``vfd/.mim`` of an installed wheel."""

from __future__ import annotations

import sys
from pathlib import Path

import vfd


def place(name: str) -> Path:
    """Return the folder ``configs``, ``tools`` or ``examples`` of this installation."""
    package = Path(vfd.__file__).parent
    packaged = package / '.mim' / name
    return packaged if packaged.is_dir() else package.parent / name


def find_config(path: str | Path) -> Path:
    """Return the path of a config; ``configs/...`` that is not there is looked for in this installation."""
    installed = place('configs').parent / path
    return installed if not Path(path).exists() and installed.is_file() else Path(path)


def find_examples() -> None:
    """Make the packages of ``examples`` importable."""
    folder = str(place('examples'))
    if folder not in sys.path:
        sys.path.insert(0, folder)
