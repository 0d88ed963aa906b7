"""Inputs of a student that does not read images: voxels, pillars, points, or several tensors.

``example_inputs`` of a config, at its top level, says what the network reads. One tensor::

    example_inputs = dict(shape=(2, 16, 64, 64))

several as a tuple (arguments of ``forward``, where it has as many without a default, else one argument), or by name as
one dict::

    example_inputs = [dict(shape=(2, 100, 4)), dict(shape=(2, 100), dtype='int64', high=64)]
    example_inputs = dict(voxels=dict(shape=(40, 32, 4)), coords=dict(shape=(40, 4), dtype='int64', high=2))

or real ones: the path of a ``.safetensors`` or ``.npz`` file, whose tensors are given by name (a single one alone).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vfd.errors import MissingFileError, UserError

DTYPES = ('float32', 'float16', 'bfloat16', 'float64', 'int64', 'int32', 'uint8', 'bool')
_KEYS = {'shape', 'dtype', 'high'}


def example_inputs(spec: Any, seed: int = 0) -> Any:
    """Make the inputs that a config describes.

    Args:
        spec: ``example_inputs`` of a config. Floating-point tensors are drawn from the normal distribution, integers
            from 0 to ``high`` (default 2, exclusive).
        seed: of the draw.

    Returns:
        A tensor, a tuple of tensors or a dict of them.

    Raises:
        UserError: none of the forms above.
    """
    if isinstance(spec, (str, Path)):
        return _read(Path(spec))
    generator = torch.Generator().manual_seed(seed)
    if isinstance(spec, Mapping) and 'shape' not in spec and spec:
        return {name: _draw(entry, f'example_inputs.{name}', generator) for name, entry in spec.items()}
    if isinstance(spec, (list, tuple)) and spec:
        return tuple(_draw(entry, f'example_inputs[{k}]', generator) for k, entry in enumerate(spec))
    return _draw(spec, 'example_inputs', generator)


def call(model: nn.Module, inputs: Any) -> Any:
    """Call a network on a tensor, a tuple or a dict of tensors.

    A tuple is spread over the arguments of ``forward`` where that needs as many.
    """
    if isinstance(inputs, tuple):
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [
            p
            for p in inspect.signature(model.forward).parameters.values()
            if p.kind in kinds and p.default is p.empty
        ]
        if len(needed) == len(inputs) > 1:
            return model(*inputs)
    return model(inputs)


def named_inputs(inputs: Any, single: str = 'inputs') -> dict[str, Tensor]:
    """The tensors of inputs in order, each with a name: ``inputs``, ``input_0`` ..., or the names of a dict."""
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return {f'input_{k}': tensor for k, tensor in enumerate(inputs)}
    return {single: inputs}


def _draw(entry: Any, place: str, generator: torch.Generator) -> Tensor:
    if not isinstance(entry, Mapping) or 'shape' not in entry or set(entry) - _KEYS:
        raise UserError(
            f'{place}={entry!r}: expected dict(shape=(...), dtype="float32", high=...), a list or a dict of these, or '
            'the path of a .safetensors or .npz file'
        )
    shape, dtype = tuple(entry['shape']), entry.get('dtype', 'float32')
    if dtype not in DTYPES:
        raise UserError(f'{place}.dtype="{dtype}": one of {", ".join(DTYPES)}')
    kind = getattr(torch, dtype)
    if kind.is_floating_point:
        return torch.randn(shape, generator=generator).to(kind)
    return torch.randint(0, entry.get('high', 2), shape, generator=generator).to(kind)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise MissingFileError(f'example_inputs="{path}": no such file')
    if path.suffix == '.npz':
        with np.load(path, allow_pickle=False) as file:
            tensors = {name: torch.from_numpy(file[name]) for name in file.files}
    elif path.suffix == '.safetensors':
        tensors = load_file(path)
    else:
        raise UserError(f'example_inputs="{path}": expected a .safetensors or .npz file')
    return next(iter(tensors.values())) if len(tensors) == 1 else tensors
