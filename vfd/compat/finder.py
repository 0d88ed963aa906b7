"""The import finder that serves ``mmcv._ext`` when there is no compiled one.

Without it every pure wheel of mmcv fails at the first import of a model::

    >>> import mmdet.models
    ModuleNotFoundError: No module named 'mmcv._ext'

``import vfd`` appends the finder behind all others: a compiled ``mmcv._ext`` on the path always wins, and
the stand-in is imported only when it is needed. Standard library only, so that ``import vfd`` stays
light.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

EXTENSION = 'mmcv._ext'


class StandInLoader(Loader):
    """Fills the module ``mmcv._ext`` with the operators of :mod:`vfd.compat.mmcv_ops`."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Let the import system make an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """Import the stand-in (and with it torch and torchvision) and copy its operators."""
        from vfd.compat import mmcv_ops

        mmcv_ops.fill(module)


class StandInFinder(MetaPathFinder):
    """Finds ``mmcv._ext`` alone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the stand-in's specification, or None for every other module."""
        if fullname != EXTENSION:
            return None
        return ModuleSpec(fullname, StandInLoader(), origin='vfd.compat.mmcv_ops')


def announce() -> None:
    """Append the finder to ``sys.meta_path``, once."""
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())
