"""mmpretrain without importing mmdet.

One module of mmpretrain, ``res_layer_extra_norm``, imports mmdet where it is installed, to register one layer there.
Every run of a classifier then pays for importing a detection package that it does not use.

Until mmdet is imported elsewhere the module is a stand-in with the content that it has where mmdet is absent
(``ResLayerExtraNorm = None``); importing ``mmdet.models`` afterwards executes the real one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from vfd.compat.after_import import after_import

LAYER = 'mmpretrain.models.utils.res_layer_extra_norm'
_DETECTORS = 'mmdet.models'


class _StandIn(Loader):
    """The module without mmdet; it keeps its real specification."""

    def __init__(self, real: ModuleSpec) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> None:
        """Let the import system make an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """Set what mmpretrain sets where mmdet is absent."""
        module.ResLayerExtraNorm = None  # type: ignore[attr-defined]


class _Finder(MetaPathFinder):
    """Finds the module of mmpretrain, until mmdet is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the stand-in's specification, or None for every other module."""
        if fullname != LAYER or _DETECTORS in sys.modules:
            return None
        spec = PathFinder.find_spec(fullname, path)
        return None if spec is None else ModuleSpec(fullname, _StandIn(spec), origin=spec.origin)


def _execute_the_layer(_: ModuleType) -> None:
    """Execute the real module in the place of the stand-in."""
    module = sys.modules.get(LAYER)
    stand_in = getattr(getattr(module, '__spec__', None), 'loader', None)
    if module is not None and isinstance(stand_in, _StandIn) and stand_in.real.loader is not None:
        stand_in.real.loader.exec_module(module)
        sys.modules[LAYER.rpartition('.')[0]].ResLayerExtraNorm = module.ResLayerExtraNorm  # type: ignore[attr-defined]


def repair() -> None:
    """Put the finder in front, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
        after_import(_DETECTORS, _execute_the_layer)
