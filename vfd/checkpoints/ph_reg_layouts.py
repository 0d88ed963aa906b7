"""The files that PH-Reg's released code writes, as vfd's networks with registers call their tensors, and back.

DINOv2 (:class:`vfd.RegisterViT`): ``registers`` (1, m, D), Hugging Face's tree under ``model.``, and the same tensors
once more as ``embed.*``, ``encoder.*`` and ``layernorm.*``. A second kind of file keeps only what was trained, in its
entry ``trainable_state_dict``.

CLIP (:class:`vfd.RegisterCLIP`): ``register_tokens`` (m, D), and OpenAI's names of the image tower under
``original_image_encoder.`` or, in later files, ``vit.``; positions are (1 + T, D) or (1, 1 + T, D).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vfd.checkpoints.dinov2_layout import from_hugging_face_dinov2, to_hugging_face_dinov2
from vfd.errors import UserError

_TREE = 'model.'
_ALIASES = {'embeddings.': 'embed.', 'encoder.': 'encoder.', 'layernorm.': 'layernorm.'}
_TOWERS = ('original_image_encoder.', 'vit.')


def is_ph_reg_dinov2(names: Iterable[str]) -> bool:
    """Return whether these are the names of a released DINOv2 student, whole or what was trained of it."""
    return {'registers', 'model.embeddings.position_embeddings'} <= set(names)


def from_ph_reg_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to timm's names, with ``reg_token``; the second copy of each tensor is compared and dropped.

    Raises:
        UserError: the two copies of a tensor differ.
    """
    tree = {name.removeprefix(_TREE): value for name, value in state.items() if name.startswith(_TREE)}
    for name, value in tree.items():
        alias = state.get(_alias(name))
        if alias is not None and not torch.equal(alias, value):
            raise UserError(
                f'the file holds {_TREE}{name} and {_alias(name)}, which should be the same tensor, with different '
                'values: it is damaged or was edited. Take the original file.'
            )
    return {'reg_token': state['registers'], **from_hugging_face_dinov2(tree)}


def to_ph_reg_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a :class:`vfd.RegisterViT` as the released file has it, second copies included.

    The released network also has a mask token, which nothing reads: zeros here.
    """
    width = state['cls_token'].shape[-1]
    masked = {'mask_token': state['cls_token'].new_zeros(1, width)}
    tree = to_hugging_face_dinov2({**{k: v for k, v in state.items() if k != 'reg_token'}, **masked})
    return {
        'registers': state['reg_token'],
        **{_TREE + name: value for name, value in tree.items()},
        **{_alias(name): value for name, value in tree.items()},
    }


def is_ph_reg_clip(names: Iterable[str]) -> bool:
    """Return whether these are the names of a released CLIP student."""
    names = set(names)
    return 'register_tokens' in names and any(f'{tower}conv1.weight' in names for tower in _TOWERS)


def from_ph_reg_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to open_clip's names of an image tower, with ``register_tokens``."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        tower = next((tower for tower in _TOWERS if name.startswith(tower)), '')
        inner = name.removeprefix(tower)
        renamed[inner] = value.flatten(0, -2) if inner == 'positional_embedding' else value
    return renamed


def to_ph_reg_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a :class:`vfd.RegisterCLIP` as the released code's later files have it."""
    return {name if name == 'register_tokens' else f'vit.{name}': value for name, value in state.items()}


def _alias(name: str) -> str:
    """Return the second name of a tensor of the tree."""
    start = next((start for start in _ALIASES if name.startswith(start)), '')
    return _ALIASES.get(start, '') + name.removeprefix(start)
