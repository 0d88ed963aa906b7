"""Do something right after a module is imported, without importing it now."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

Action = Callable[[ModuleType], None]


class _ThenAct(Loader):
    """A loader that acts on the module that another one has executed."""

    def __init__(self, loader: Loader, action: Action) -> None:
        self.loader = loader
        self.action = action

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute (sources, resources) of the real loader."""
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as the real loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, then act."""
        self.loader.exec_module(module)
        self.action(module)


class _Finder(MetaPathFinder):
    """Finds one module."""

    def __init__(self, name: str, action: Action) -> None:
        self.name = name
        self.action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's own specification with the action behind its loader; None for every other module."""
        spec = PathFinder.find_spec(fullname, path) if fullname == self.name else None
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenAct(spec.loader, self.action)
        return spec


def after_import(name: str, action: Action) -> None:
    """Call ``action(module)`` when a module is imported; at once where it is imported already.

    Args:
        name: full name of the module, which need not be installed.
        action: what to do; registered once, however often this is called with it.
    """
    if name in sys.modules:
        action(sys.modules[name])
    elif not any(isinstance(f, _Finder) and (f.name, f.action) == (name, action) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder(name, action))
