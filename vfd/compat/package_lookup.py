"""Finding the folder of an installed OpenMMLab package, for configs such as ``mmdet::retinanet/...``.

Two things break. mmengine 0.10.7 asks ``pkg_resources``, which setuptools dropped in version 82 (torch
brings a newer one)::

    >>> from mmengine.hub import get_config
    >>> get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    ModuleNotFoundError: No module named 'pkg_resources'

And the name of the distribution is looked up, which differs in the onedl-* forks::

    >>> get_config('mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py')
    PackageNotFoundError: ... Cannot determine installed path for mmsegmentation

The functions here ask the import system instead, so they answer for the package that an import would give.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

# Modules of mmengine that hold a reference of their own to the functions that are replaced.
_HOLDERS = ('mmengine.utils.package_utils', 'mmengine.utils', 'mmengine.config.config', 'mmengine.hub.hub')


def repair() -> None:
    """Mend mmengine's package look-up where it is broken."""
    _use_module_names_for_forks()
    if _needs_pkg_resources():
        for holder in _HOLDERS:
            module = sys.modules.get(holder)
            for function in (is_installed, get_installed_path, package2module):
                if hasattr(module, function.__name__):
                    setattr(module, function.__name__, function)


def is_installed(package: str) -> bool:
    """Whether a package is installed.

    Args:
        package: The name of a distribution or of a module.
    """
    return _has_distribution(package) or _package_folder(package) is not None


def get_installed_path(package: str) -> str:
    """The folder of an installed package.

    Args:
        package: The name of a distribution (``'mmsegmentation'``) or of a module (``'mmseg'``).

    Raises:
        importlib.metadata.PackageNotFoundError: There is no such package.
    """
    folder = _package_folder(package) or _package_folder(package2module(package))
    if folder is None:
        raise importlib.metadata.PackageNotFoundError(package)
    return str(folder)


def package2module(package: str) -> str:
    """The importable name of a distribution: ``'mmsegmentation'`` -> ``'mmseg'``.

    Raises:
        importlib.metadata.PackageNotFoundError: There is no such distribution.
        ValueError: Its metadata do not name a module.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    for module, distribution in MODULE2PACKAGE.items():
        if distribution == package:
            return module
    names = importlib.metadata.distribution(package).read_text('top_level.txt')
    if not names:
        raise ValueError(f'can not infer the module name of {package}')
    return names.split()[0]


def _use_module_names_for_forks() -> None:
    """Where a module is there but its usual distribution is not, look it up by the module's name."""
    from mmengine.config.utils import MODULE2PACKAGE

    for module, distribution in MODULE2PACKAGE.items():
        if not _has_distribution(distribution) and _package_folder(module) is not None:
            MODULE2PACKAGE[module] = module


def _needs_pkg_resources() -> bool:
    """Whether the installed mmengine fails for want of ``pkg_resources``."""
    if importlib.util.find_spec('pkg_resources') is not None:
        return False
    from mmengine.utils import package_utils

    try:
        package_utils.is_installed('mmengine')
    except ModuleNotFoundError:
        return True
    return False


def _has_distribution(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _package_folder(module: str) -> Path | None:
    """The folder of a regular top-level package; None when it is absent or a namespace package."""
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
