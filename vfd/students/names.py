"""Tensor names of a timm student inside a distiller."""

from __future__ import annotations

from typing import Any

from torch import nn


def keep_timm_names(student: nn.Module) -> None:
    """Let mmpretrain's ``TimmClassifier`` (and ``HuggingFaceClassifier``) be a part of another model.

    They call their tensors by the library's own names, without the ``model.`` in front; but their hooks do so only
    where they are the outermost module. As a part they save ``student.model.x`` and look for
    ``student.model.model.x``, so that a checkpoint loads nothing and mmengine only warns. Afterwards the names are
    ``student.x`` in both directions; files with ``student.model.x`` are read as well.
    """
    if not hasattr(student, '_remove_state_dict_prefix'):
        return
    student._state_dict_hooks.clear()
    student._load_state_dict_pre_hooks.clear()
    student._register_state_dict_hook(_without_model)
    student._register_load_state_dict_pre_hook(_with_model)


def _without_model(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: dict) -> None:
    """Rename in place: what a hook returns is dropped for all but the outermost module."""
    inner = f'{prefix}model.'
    for name in [name for name in state_dict if name.startswith(inner)]:
        state_dict[prefix + name.removeprefix(inner)] = state_dict.pop(name)


def _with_model(state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
    inner = f'{prefix}model.'
    for name in [name for name in state_dict if name.startswith(prefix) and not name.startswith(inner)]:
        state_dict[inner + name.removeprefix(prefix)] = state_dict.pop(name)
