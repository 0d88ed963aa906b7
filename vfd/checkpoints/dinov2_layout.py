"""Names of DINOv2 in Hugging Face's layout, as timm calls them, and back.

=========================  =========================================================
timm                       Hugging Face ``Dinov2Model``
=========================  =========================================================
``cls_token``              ``embeddings.cls_token``
``pos_embed``              ``embeddings.position_embeddings``
``patch_embed.proj``       ``embeddings.patch_embeddings.projection``
``blocks.i.attn.qkv``      ``encoder.layer.i.attention.attention.{query,key,value}``
``blocks.i.attn.proj``     ``encoder.layer.i.attention.output.dense``
``blocks.i.ls1.gamma``     ``encoder.layer.i.layer_scale1.lambda1``
``blocks.i.mlp.fc1``       ``mlp.fc1``, or ``mlp.weights_in`` (SwiGLU)
``norm``                   ``layernorm``
none                       ``embeddings.mask_token``
=========================  =========================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_QKV = ('query', 'key', 'value')
_OUTER = {
    'embeddings.cls_token': 'cls_token',
    'embeddings.mask_token': 'mask_token',
    'embeddings.position_embeddings': 'pos_embed',
    'embeddings.patch_embeddings.projection': 'patch_embed.proj',
    'layernorm': 'norm',
}
_BLOCK = {
    'attention.output.dense': 'attn.proj',
    'layer_scale1.lambda1': 'ls1.gamma',
    'layer_scale2.lambda1': 'ls2.gamma',
    'mlp.weights_in': 'mlp.fc1',
    'mlp.weights_out': 'mlp.fc2',
}


def is_hugging_face_dinov2(names: Iterable[str]) -> bool:
    """Return whether these are the names of a ``Dinov2Model``, or of a model that has one under ``dinov2.``.

    DINOv2 with registers of its own is another network and is left to whoever reads it.
    """
    bare = {name.removeprefix('dinov2.') for name in names}
    needed = {'embeddings.position_embeddings', 'encoder.layer.0.layer_scale1.lambda1', 'layernorm.weight'}
    return needed <= bare and 'embeddings.register_tokens' not in bare


def from_hugging_face_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename; query, key and value of a block become one tensor, in that order. Unknown names stay."""
    bare = {name.removeprefix('dinov2.'): value for name, value in state.items()}
    renamed: dict[str, Tensor] = {}
    for name, value in bare.items():
        match = re.fullmatch(r'encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(\w+)', name)
        if match is None:
            renamed[_to_timm(name)] = value
            continue
        block, part, leaf = match.groups()
        stem = f'encoder.layer.{block}.attention.attention'
        whole = [bare[key] for other in _QKV if (key := f'{stem}.{other}.{leaf}') in bare]
        if len(whole) < len(_QKV):  # left alone, so that the loader reports what is missing
            renamed[name] = value
        elif part == _QKV[0]:
            renamed[f'blocks.{block}.attn.qkv.{leaf}'] = torch.cat(whole)
    return renamed


def to_hugging_face_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reverse the renaming, for blocks with a plain MLP."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        match = re.fullmatch(r'blocks\.(\d+)\.attn\.qkv\.(\w+)', name)
        if match is None:
            renamed[_to_hugging_face(name)] = value
            continue
        for part, third in zip(_QKV, value.chunk(3), strict=True):
            renamed[f'encoder.layer.{match[1]}.attention.attention.{part}.{match[2]}'] = third
    return renamed


def _to_timm(name: str) -> str:
    if match := re.fullmatch(r'encoder\.layer\.(\d+)\.(.+)', name):
        return f'blocks.{match[1]}.{_start(match[2], _BLOCK)}'
    return _start(name, _OUTER)


def _to_hugging_face(name: str) -> str:
    back = {new: old for old, new in _BLOCK.items() if 'weights_' not in old}
    if match := re.fullmatch(r'blocks\.(\d+)\.(.+)', name):
        return f'encoder.layer.{match[1]}.{_start(match[2], back)}'
    return _start(name, {new: old for old, new in _OUTER.items()})


def _start(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if name == old or name.startswith(f'{old}.'):
            return new + name.removeprefix(old)
    return name
