"""Weights for a BEiT-style segmentation backbone, from the files of every stage before it.

Input: a pre-training's encoder (released MAE, DMAE or G2SD file, or what vfd wrote), a released BEiT-style
segmentation file (mmseg 0.x), a distillation's checkpoint with student and teacher side by side. The output has
the names of timm's ``Beit`` and fits the sizes of the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch.nn.functional as F
from scipy.interpolate import RectBivariateSpline
from timm.models.beit import Beit
from torch import Tensor, cat, from_numpy, nn

from vfd.checkpoints.pos_embed import bicubic_position_embedding

_TABLE = 'relative_position_bias_table'
_CLS_ENTRIES = 3  # class to patch, patch to class, class to class


def backbone_tensors(state: Mapping[str, Tensor], network: Beit) -> dict[str, Tensor]:
    """Return the tensors of a file that belong to a backbone.

    A file with names under ``student.`` is a distillation's: all else in it (``teacher.``, class maps that the released
    code saves along) is left out. Of a segmentor the part under ``backbone.`` is taken. Then

    - ``attn.qkv.bias`` becomes ``q_bias`` and ``v_bias``; the keys' part is dropped, for it adds one number to a whole
      row of the attention and so cancels in the softmax;
    - ``relative_position_index``, which follows from the grid, is dropped;
    - patch kernel ([ours]: plain bicubic) and absolute position are interpolated bicubically, and the tables
      of relative positions by `resize_relative_table`, where the network has another patch size or grid.

    Args:
        state: tensors by the file's names.
        network: whose sizes count.

    Returns:
        Tensors by timm's names. What fits nowhere is still there, under its own name.
    """
    tensors = _student(state)
    if any(name.startswith('backbone.') for name in tensors):
        tensors = _under('backbone.', tensors)
    return _fitted(tensors, network)


def segmentor_tensors(state: Mapping[str, Tensor], segmentor: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a file that belong to a whole segmentor of mmseg, see `backbone_tensors`.

    Args:
        state: tensors by the file's names.
        segmentor: has a ``backbone``. One that is no BEiT keeps the file's names.
    """
    tensors = _student(state)
    backbone = segmentor.backbone
    if not isinstance(backbone, Beit):
        return tensors
    heads = {name: value for name, value in tensors.items() if not name.startswith('backbone.')}
    fitted = _fitted(_under('backbone.', tensors), backbone)
    return heads | {f'backbone.{name}': value for name, value in fitted.items()}


def _student(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return _under('student.', state) or dict(state)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _fitted(tensors: Mapping[str, Tensor], network: Beit) -> dict[str, Tensor]:
    grid = cast(tuple[int, int], network.patch_embed.grid_size)
    patch = cast(tuple[int, int], network.patch_embed.patch_size)
    fitted: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith('relative_position_index'):
            continue
        if name.endswith('attn.qkv.bias'):
            stem = name.removesuffix('qkv.bias')
            fitted[f'{stem}q_bias'], _, fitted[f'{stem}v_bias'] = value.chunk(3)
        elif name == 'patch_embed.proj.weight' and value.ndim == 4 and value.shape[2:] != patch:
            fitted[name] = F.interpolate(value.float(), patch, mode='bicubic', align_corners=False).to(value)
        elif name == 'pos_embed' and value.ndim == 3 and _is_square(value.shape[1] - 1, grid):
            fitted[name] = bicubic_position_embedding(value, grid)
        elif name.endswith(_TABLE) and value.ndim == 2:
            fitted[name] = resize_relative_table(value, grid)
        else:
            fitted[name] = value
    return fitted


def _is_square(count: int, grid: tuple[int, int]) -> bool:
    """Return whether ``count`` entries are a square grid other than ``grid``."""
    return count > 0 and math.isqrt(count) ** 2 == count and grid != (math.isqrt(count),) * 2


def resize_relative_table(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Interpolate a table of relative positions by BEiT's rule (arXiv 2106.08254, released code).

    A table of s x s offsets becomes one of t x t. Near offsets matter most and keep nearly their own values: the old
    offsets are placed at 0, +-1, +-(1 + q), +-(1 + q + q^2), ..., a geometric progression whose ratio q, between 1.01
    and 1.5, lets the outermost reach t // 2. A cubic spline through them is read at the whole numbers; beyond the
    outermost it keeps its value there. The three entries of the class token stay.

    Args:
        table: ((2g - 1)^2 + 3, heads), of a square grid of g x g patches.
        grid: (h, w) of the network.

    Returns:
        ((2h - 1)(2w - 1) + 3, heads); ``table`` itself where nothing is to be done or it is of no square grid.
    """
    side = math.isqrt(max(len(table) - _CLS_ENTRIES, 0))
    sides = (2 * grid[0] - 1, 2 * grid[1] - 1)
    if side % 2 == 0 or side * side + _CLS_ENTRIES != len(table) or sides == (side, side):
        return table
    order = min(3, side - 1)
    if order == 0:  # one patch: one offset, which is every offset
        resized = table[:1].expand(sides[0] * sides[1], -1)
        return cat([resized, table[1:]])
    rows, columns = (_positions(side, target) for target in sides)
    wanted = [np.arange(target) - target // 2 for target in sides]
    maps = table[:-_CLS_ENTRIES].double().cpu().numpy().reshape(side, side, -1)
    heads = [
        RectBivariateSpline(rows, columns, maps[:, :, head], kx=order, ky=order)(*wanted).ravel()
        for head in range(maps.shape[-1])
    ]
    return cat([from_numpy(np.stack(heads, axis=1)).to(table), table[-_CLS_ENTRIES:]])


def _positions(side: int, target: int) -> np.ndarray:
    """Return where the old offsets lie among the new ones: (side,), symmetric."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        reach = (1 - ratio ** (side // 2)) / (1 - ratio)
        low, high = (low, ratio) if reach > target // 2 else (ratio, high)
    distances = np.cumsum(ratio ** np.arange(side // 2))
    return np.concatenate([-distances[::-1], [0.0], distances])
