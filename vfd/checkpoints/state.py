"""From a file to named tensors: unwrap containers and wrappers, translate foreign names."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vfd.checkpoints.files import file_sha256, weight_file_kind
from vfd.checkpoints.layouts import translate
from vfd.checkpoints.readers import read_npz, read_pickle, read_safetensors, read_torch
from vfd.errors import UserError

# Where training scripts keep the weights, the averaged ones first: timm's own loader takes them first, too.
CONTAINERS = (
    *('state_dict_ema', 'model_ema', 'state_dict', 'model', 'model_state', 'model_state_dict'),
    *('network', 'net', 'params', 'weights', 'module', 'trainable_state_dict'),
)


@dataclass
class StateFile:
    """The tensors of one weight file.

    Attributes:
        state: tensors on the CPU, by name; wrappers' prefixes (``module.``, ``_orig_mod.``) are gone.
        meta: metadata of the file; for mmengine and vfd checkpoints their ``meta`` entry.
        layout: whose names these are: ``'vfd'``, ``'mmengine'``, ``'paddle'``, ``'efficientnet-lite0'``
            (already renamed to timm's) or ``'plain'``.
        sha256: of the file.
        path: the file.
        container: the entry of the file that held the tensors, such as ``'state_dict'``; empty for the file
            itself.
    """

    state: dict[str, Tensor]
    meta: dict[str, Any]
    layout: str
    sha256: str
    path: Path
    container: str = ''


def load_state(path: str | Path, *, trust: bool = False, foreign_names: bool = False) -> StateFile:
    """Read a weight file of any known format and layout.

    The format is detected from the content. A file with several networks (``student`` and ``teacher`` entries)
    keeps their names as prefixes: choose one with ``load_into(..., prefix='teacher.')``.

    Args:
        path: ``.pth .pt .th .bin .tar`` (torch), ``.safetensors``, ``.npz`` or ``.pdparams`` (Paddle).
        trust: run the code that a pickled file may hold. Only for files of your own.
        foreign_names: keep the names of other libraries (transformers, for example) instead of bringing them to timm's.

    Returns:
        The tensors with what is known about them.

    Raises:
        MissingFileError: the file is absent.
        UserError: the file is empty, damaged, no weight file, holds no tensors, or is a pickle with code in
            it.
    """
    path = Path(path).expanduser()
    kind = weight_file_kind(path)
    content: Any
    meta: dict[str, Any] = {}
    if kind == 'safetensors':
        content, header = read_safetensors(path)
        meta = {key: _parsed(value) for key, value in header.items()}
    elif kind == 'npz':
        content = read_npz(path)
    else:
        content = read_torch(path, trust=trust) if kind == 'torch' else read_pickle(path, trust=trust)
        content = content.state_dict() if isinstance(content, torch.nn.Module) else content
        meta = _meta(content)
    container, tensors = _find_tensors(content, path)
    layout = 'vfd' if 'vfd' in meta else 'mmengine' if 'mmengine_version' in meta else 'plain'
    state = _strip_wrappers(tensors)
    found, state = (None, state) if foreign_names else translate(state, paddle=kind == 'pickle')
    return StateFile(state, meta, found or layout, file_sha256(path), path, container)


def _find_tensors(content: Any, path: Path) -> tuple[str, dict[str, Tensor]]:
    """Find the tensors of ``content``, and the dotted name of the entry that held them."""
    names: list[str] = []
    while isinstance(content, Mapping):
        inner = next(
            (n for n in CONTAINERS if isinstance(content.get(n), Mapping) and _tensors(content[n])), None
        )
        if inner is None:
            break
        names.append(inner)
        content = content[inner]
    tensors = _tensors(content) if isinstance(content, Mapping) else {}
    if not tensors:
        held = (
            ', '.join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        )
        raise UserError(f'{path} holds no named tensors (found: {held or "nothing"}); expected a state dict.')
    return '.'.join(names), tensors


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors directly in ``content``, or else those of its networks with their names as prefixes."""
    direct = {k: _as_tensor(v) for k, v in content.items() if isinstance(k, str) and _is_array(v)}
    if direct:
        return direct
    flat: dict[str, Tensor] = {}
    for name, entry in content.items():
        if isinstance(name, str) and isinstance(entry, Mapping):
            inner = {k: _as_tensor(v) for k, v in entry.items() if isinstance(k, str) and _is_array(v)}
            flat |= {f'{name}.{k}': v for k, v in _strip_wrappers(inner).items()}
    return flat


def _is_array(value: Any) -> bool:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):  # Paddle: (name, array)
        value = value[1]
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in 'fiub')


def _as_tensor(value: Any) -> Tensor:
    value = value[1] if isinstance(value, tuple) else value
    return (
        value.detach() if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value).copy())
    )


def _strip_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the prefixes that DataParallel (``module.``) and torch.compile (``_orig_mod.``) add."""
    clean = {name.replace('_orig_mod.', ''): value for name, value in tensors.items()}
    while clean and all(name.startswith('module.') for name in clean):
        clean = {name.removeprefix('module.'): value for name, value in clean.items()}
    return clean


def _meta(content: Any) -> dict[str, Any]:
    """Return the training script's metadata beside the weights, as plain values."""
    if not isinstance(content, Mapping):
        return {}
    if isinstance(content.get('meta'), Mapping):
        return dict(content['meta'])
    return {
        str(k): vars(v) if isinstance(v, argparse.Namespace) else v
        for k, v in content.items()
        if _is_plain(v)
    }


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool, argparse.Namespace))


def _parsed(value: str) -> Any:
    """Parse a metadata string of safetensors; structured values are kept there as JSON."""
    try:
        return json.loads(value) if value[:1] in '{[' else value
    except json.JSONDecodeError:
        return value
