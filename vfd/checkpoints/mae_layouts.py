"""Names of masked autoencoders: Hugging Face's and mmpretrain's, as the released MAE files (and timm) call them.

============================  ==========================================  ===================================
released, timm                Hugging Face ``ViTMAE``                     mmpretrain ``MAE``
============================  ==========================================  ===================================
``cls_token``                 ``embeddings.cls_token``                    ``backbone.cls_token``
``pos_embed``                 ``embeddings.position_embeddings``          ``backbone.pos_embed``
``patch_embed.proj``          ``embeddings.patch_embeddings.projection``  ``backbone.patch_embed.projection``
``blocks.i``                  ``encoder.layer.i``                         ``backbone.layers.i``
``norm1``, ``norm2``          ``layernorm_before``, ``layernorm_after``   ``ln1``, ``ln2``
``attn.qkv``                  ``attention.attention.{query,key,value}``   ``attn.qkv``
``attn.proj``                 ``attention.output.dense``                  ``attn.proj``
``mlp.fc1``, ``mlp.fc2``      ``intermediate.dense``, ``output.dense``    ``ffn.layers.0.0``, ``ffn.layers.1``
``norm``                      ``layernorm``                               ``backbone.ln1``
``decoder_blocks.i``          ``decoder.decoder_layers.i``                ``neck.decoder_blocks.i``
``decoder_norm``              ``decoder.decoder_norm``                    ``neck.ln1``
``mask_token``, other         ``decoder.`` and the same name              ``neck.`` and the same name
decoder parts
============================  ==========================================  ===================================

Hugging Face's encoder is under ``vit.`` in a whole model and under no prefix in a file of the encoder alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_QKV = ('query', 'key', 'value')

_HF_OUTER = {
    'embeddings.cls_token': 'cls_token',
    'embeddings.position_embeddings': 'pos_embed',
    'embeddings.patch_embeddings.projection': 'patch_embed.proj',
    'layernorm': 'norm',
}
_HF_BLOCK = {
    'layernorm_before': 'norm1',
    'layernorm_after': 'norm2',
    'attention.output.dense': 'attn.proj',
    'intermediate.dense': 'mlp.fc1',
    'output.dense': 'mlp.fc2',
}
_MMPRETRAIN_OUTER = {
    'backbone.patch_embed.projection': 'patch_embed.proj',
    'backbone.ln1': 'norm',
    'neck.ln1': 'decoder_norm',
}
_MMPRETRAIN_BLOCK = {
    'ln1': 'norm1',
    'ln2': 'norm2',
    'attn.qkv': 'attn.qkv',
    'attn.proj': 'attn.proj',
    'ffn.layers.0.0': 'mlp.fc1',
    'ffn.layers.1': 'mlp.fc2',
}


def is_hugging_face(names: Iterable[str]) -> bool:
    """Return whether these are the names of Hugging Face's ViTMAE, or of its encoder.

    A classifier or another network with the same encoder (DeiT, BEiT, DINOv2) is left to whoever reads it.
    """
    bare = {name.removeprefix('vit.') for name in names}
    others = ('classifier.', 'embeddings.distillation_token', 'embeddings.register_tokens')
    return (
        {'embeddings.position_embeddings', 'encoder.layer.0.layernorm_before.weight', 'layernorm.weight'}
        <= bare
        and all(f'encoder.layer.0.attention.attention.{part}.weight' in bare for part in _QKV)
        and not any(name.startswith(others) or '.lambda_1' in name for name in bare)
    )


def is_mmpretrain(names: Iterable[str]) -> bool:
    """Return whether these are the names of a vision transformer of mmpretrain, with or without MAE's decoder.

    mmpretrain's own networks read such a file as it is; the names are changed for a network with timm's names only.
    """
    return {'backbone.patch_embed.projection.weight', 'backbone.layers.0.ln1.weight'} <= set(names)


def from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename, and put query, key and value of each block into one tensor, in that order."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        match = re.fullmatch(r'(.+)\.attention\.attention\.(query|key|value)\.(weight|bias)', name)
        if match is None:
            renamed[_from_hugging_face(name)] = value
            continue
        block, part, leaf = match.groups()
        parts = [state.get(f'{block}.attention.attention.{other}.{leaf}') for other in _QKV]
        whole = [tensor for tensor in parts if tensor is not None]
        if len(whole) < len(parts):  # left alone, so that the loader reports what is missing
            renamed[name] = value
        elif part == _QKV[0]:
            renamed[f'{_from_hugging_face(block)}.attn.qkv.{leaf}'] = torch.cat(whole)
    return renamed


def from_mmpretrain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return rename."""
    return {_from_mmpretrain(name): value for name, value in state.items()}


def _from_hugging_face(name: str) -> str:
    name = name.removeprefix('vit.')
    blocks = {'encoder.layer': 'blocks', 'decoder.decoder_layers': 'decoder_blocks'}
    if (renamed := _in_block(name, blocks, _HF_BLOCK)) is not None:
        return renamed
    return _start(name, {**_HF_OUTER, 'decoder': ''})


def _from_mmpretrain(name: str) -> str:
    blocks = {'backbone.layers': 'blocks', 'neck.decoder_blocks': 'decoder_blocks'}
    if (renamed := _in_block(name, blocks, _MMPRETRAIN_BLOCK)) is not None:
        return renamed
    return _start(name, {**_MMPRETRAIN_OUTER, 'backbone': '', 'neck': ''})


def _in_block(name: str, blocks: dict[str, str], parts: dict[str, str]) -> str | None:
    """Return the new name of a tensor of a transformer block (or of the block itself), None for all others."""
    for old, new in blocks.items():
        if match := re.fullmatch(rf'{re.escape(old)}\.(\d+)(?:\.(.+))?', name):
            return f'{new}.{match[1]}' + (f'.{_start(match[2], parts)}' if match[2] else '')
    return None


def _start(name: str, table: dict[str, str]) -> str:
    """Replace the first start of ``name``, up to a dot or its end, that the table contains."""
    for old, new in table.items():
        if name == old or name.startswith(f'{old}.'):
            return f'{new}{name.removeprefix(old)}'.removeprefix('.')
    return name
