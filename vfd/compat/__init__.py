"""Repairs that make the OpenMMLab packages run on today's torch, without a compiler.

Nothing outside this package patches anything. Each repair is one small file whose docstring shows the error
that appears without it:

- :mod:`vfd.compat.finder` and :mod:`vfd.compat.mmcv_ops`: mmcv without its compiled operators;
- :mod:`vfd.compat.package_lookup`: ``mmdet::...`` configs without ``pkg_resources``, and the names of the
  forks;
- :mod:`vfd.compat.checkpoint_globals`: mmengine's own checkpoints under torch 2.6 and later;
- :mod:`vfd.compat.transformers5`: mmpretrain beside transformers 5;
- :mod:`vfd.compat.imported_before`: mmpretrain imported before vfd;
- :mod:`vfd.compat.mmpretrain_alone`: mmpretrain without importing mmdet.

:func:`install` applies all but the first, which ``import vfd`` has already done. Importing this module is
light; :func:`install` imports mmengine and with it torch.
"""

from __future__ import annotations

from vfd.compat.packages import compiled_available, require, status

__all__ = ['compiled_available', 'install', 'require', 'status']


def install() -> None:
    """Apply every repair that the installed packages need. Safe to call any number of times.

    ``vfd.registry`` calls it; call it yourself before using mmengine without vfd's registries.

    Raises:
        MissingPackageError: mmengine is not installed.
    """
    require('mmengine')
    from vfd.compat import (
        checkpoint_globals,
        imported_before,
        mmpretrain_alone,
        package_lookup,
        transformers5,
    )

    package_lookup.repair()
    checkpoint_globals.repair()
    transformers5.repair()
    imported_before.repair()
    mmpretrain_alone.repair()
