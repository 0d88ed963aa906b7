"""All options of a source as plain values, for the fingerprint of its teacher."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vfd.registry import MODELS

_NOT_OPTIONS = ('taps', 'pretrained')  # the fingerprint has them under names of its own


def source_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option with which a source is built, defaults included.

    They come from the signature of the class, so that an option which a source gains later, or a source of your own,
    needs nothing more to be in the fingerprint.

    Args:
        config: of the source, with ``type``; checked when the source was built.

    Returns:
        Option -> plain value, by name. Keyword arguments that a source passes on (``**kwargs``) are one value.
    """
    options = {name: value for name, value in config.items() if name != 'type'}
    kind = config['type'] if not isinstance(config['type'], str) else MODELS.get(config['type'])
    assert kind is not None, config['type']
    bound = inspect.signature(kind).bind_partial(**options)
    bound.apply_defaults()
    return {name: plain(value) for name, value in bound.arguments.items() if name not in _NOT_OPTIONS}


def plain(value: Any) -> Any:
    """Convert anything that a config may hold to JSON's types; equal values give equal ones, in every process."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return plain(value.tolist())
    if isinstance(value, functools.partial):
        return {
            'partial': plain(value.func),
            'args': plain(value.args),
            'keywords': plain(value.keywords),
        }
    if hasattr(value, '__qualname__'):  # a class or a function, such as act_layer=torch.nn.GELU
        return f'{value.__module__}.{value.__qualname__}'
    text = str(value)
    return text if ' at 0x' not in text else f'{type(value).__module__}.{type(value).__qualname__}'
