"""OpenMMLab packages that were imported before vfd.

mmpretrain needs no compiled operator, so that it can be imported first; a module of mmcv that found none then
lacks one of its names, which mmdet and mmseg import later::

    >>> import mmpretrain.models, vfd.registry, mmdet.models
    ImportError: cannot import name 'MultiScaleDeformableAttention' from 'mmcv.cnn.bricks.transformer'
"""

from __future__ import annotations

import sys

_NAME = 'MultiScaleDeformableAttention'


def repair() -> None:
    """Add the missing name to the module."""
    module = sys.modules.get('mmcv.cnn.bricks.transformer')
    if module is not None and not hasattr(module, _NAME):
        from mmcv.ops import multi_scale_deform_attn

        setattr(module, _NAME, getattr(multi_scale_deform_attn, _NAME))
