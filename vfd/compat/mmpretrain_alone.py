"""mmpretrain without importing mmdet.

One module of mmpretrain, ``res_layer_extra_norm``, imports mmdet where it is installed, to register one layer there.
Every run of a classifier then pays for importing a detection package that it does not use.

Until mmdet is imported by somebody else the module is a stand-in that says what it says where mmdet is absent
(``ResLayerExtraNorm = None``); importing ``mmdet.models`` afterwards executes the real one.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

LAYER = 'mmpretrain.models.utils.res_layer_extra_norm'
_DETECTORS = 'mmdet.models'


class _StandIn(Loader):
    """The module without mmdet; it keeps its real specification."""

    def __init__(self, real: ModuleSpec) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> None:
        """Let the import system make an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """What mmpretrain sets where mmdet is absent."""
        module.ResLayerExtraNorm = None  # type: ignore[attr-defined]


class _ThenTheLayer(Loader):
    """Executes ``mmdet.models``, then the module of mmpretrain that waits for it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the real loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute both."""
        self.loader.exec_module(module)
        waiting = sys.modules.get(LAYER)
        stand_in = getattr(getattr(waiting, '__spec__', None), 'loader', None)
        if waiting is not None and isinstance(stand_in, _StandIn):
            assert stand_in.real.loader is not None
            stand_in.real.loader.exec_module(waiting)
            package = sys.modules[LAYER.rpartition('.')[0]]
            package.ResLayerExtraNorm = waiting.ResLayerExtraNorm  # type: ignore[attr-defined]


class _Finder(MetaPathFinder):
    """Answers for the module of mmpretrain before mmdet is imported, and for ``mmdet.models``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A specification, or None for every other module."""
        if fullname not in (LAYER, _DETECTORS):
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        if fullname == _DETECTORS:
            spec.loader = _ThenTheLayer(spec.loader)
        elif _DETECTORS not in sys.modules:
            return ModuleSpec(fullname, _StandIn(spec), origin=spec.origin)
        return spec


def repair() -> None:
    """Put the finder in front, once, where both packages are installed."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if all(importlib.util.find_spec(name) is not None for name in ('mmpretrain', 'mmdet')):
        sys.meta_path.insert(0, _Finder())
