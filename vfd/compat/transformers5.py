"""mmpretrain beside transformers 5 or later.

mmpretrain's multimodal models are written for transformers 4. With a newer one their import fails and takes
all of ``mmpretrain.models`` with it::

    >>> import mmpretrain.models
    TypeError: NoneType takes no arguments

The repair marks the multimodal part of mmpretrain as not available, as mmpretrain does without
transformers: using such a model then raises an ImportError. transformers itself stays usable.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from types import ModuleType

from vfd.compat.after_import import after_import


def needed() -> bool:
    """Return whether mmpretrain is installed beside a transformers that is too new for it."""
    return importlib.util.find_spec('mmpretrain') is not None and _transformers_major() >= 5


def repair() -> None:
    """Switch mmpretrain's multimodal models off where the installed transformers is too new for them."""
    if _transformers_major() >= 5:
        after_import('mmpretrain.utils.dependency', _switch_off)


def _switch_off(dependency: ModuleType) -> None:
    dependency.WITH_MULTIMODAL = False  # type: ignore[attr-defined]


def _transformers_major() -> int:
    """Return the major version of transformers; 0 when it is not installed."""
    try:
        return int(importlib.metadata.version('transformers').split('.')[0])
    except importlib.metadata.PackageNotFoundError:
        return 0
