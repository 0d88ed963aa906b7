"""Finding the folder of an installed OpenMMLab package, for configs such as ``mmdet::retinanet/...``.

Two things break. mmengine 0.10.7 uses ``pkg_resources``, which setuptools dropped in version 82 (torch
brings a newer one)::

    >>> from mmengine.hub import get_config
    >>> get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    ModuleNotFoundError: No module named 'pkg_resources'

And both mmengine and its onedl-* fork go by the name of a distribution, which is another one in the forks::

    >>> get_config('mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py')
    PackageNotFoundError: ... Cannot determine installed path for mmsegmentation

or which, with originals and forks on one path, lies in another folder than the module that an import loads.
The functions here take the place of mmengine's and use the import system.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

# Modules of mmengine that hold a reference of their own to the functions that are replaced.
_HOLDERS = ('mmengine.utils.package_utils', 'mmengine.utils', 'mmengine.config.config', 'mmengine.hub.hub')


def repair() -> None:
    """Replace mmengine's package look-up."""
    import mmengine.config  # noqa: F401  (the holders, but the hub, which takes over what is replaced here)

    for holder in _HOLDERS:
        module = sys.modules.get(holder)
        for function in (is_installed, get_installed_path, package2module):
            if hasattr(module, function.__name__):
                setattr(module, function.__name__, function)


def is_installed(package: str) -> bool:
    """Return whether a package is installed.

    Args:
        package: The name of a distribution or of a module.
    """
    if _package_folder(_known_module(package)) is not None:
        return True
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def get_installed_path(package: str) -> str:
    """Return the folder of an installed package.

    Args:
        package: The name of a distribution (``'mmsegmentation'``) or of a module (``'mmseg'``).

    Raises:
        importlib.metadata.PackageNotFoundError: There is no such package.
    """
    folder = _package_folder(_known_module(package)) or _package_folder(package2module(package))
    if folder is None:
        raise importlib.metadata.PackageNotFoundError(package)
    return str(folder)


def package2module(package: str) -> str:
    """Return the importable name of an installed distribution: ``'mmsegmentation'`` -> ``'mmseg'``.

    Raises:
        importlib.metadata.PackageNotFoundError: There is no such distribution.
        ValueError: Its metadata do not name a module.
    """
    module = _known_module(package)
    if module != package:
        return module
    names = importlib.metadata.distribution(package).read_text('top_level.txt')
    if not names:
        raise ValueError(f'can not infer the module name of {package}')
    return names.split()[0]


def _known_module(package: str) -> str:
    """Return the module of an OpenMMLab distribution; the name itself for everything else."""
    from mmengine.config.utils import MODULE2PACKAGE

    return next((m for m, distribution in MODULE2PACKAGE.items() if distribution == package), package)


def _package_folder(module: str) -> Path | None:
    """Return the folder of a regular top-level package; None when it is absent or a namespace package."""
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
