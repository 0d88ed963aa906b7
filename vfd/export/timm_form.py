"""The timm network inside a student."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import timm
from torch import nn

from vfd.checkpoints import load_into
from vfd.errors import UserError
from vfd.export.student import LiveStudent

_OTHERS = 'Targets that take any student: mmpretrain, safetensors, onnx, torchscript.'
# What mmpretrain's two wrappers keep for themselves; all else goes to timm.create_model.
_WRAPPER_KEYS = {
    'type',
    'model_name',
    'loss',
    'train_cfg',
    'with_cp',
    'init_cfg',
    'features_only',
    'in_channels',
}


@dataclass
class TimmForm:
    """A student as timm builds it.

    Attributes:
        name: the architecture.
        args: what ``timm.create_model`` needs beside it.
        network: with the student's weights, in eval mode.
    """

    name: str
    args: dict[str, Any]
    network: nn.Module

    @property
    def call(self) -> str:
        """The arguments of ``timm.create_model`` after the name, as Python text."""
        return ''.join(f', {key}={value!r}' for key, value in self.args.items())


def timm_form(student: LiveStudent) -> TimmForm:
    """Find or assemble the timm network of a student.

    Known: mmpretrain's ``TimmClassifier``, and ``ImageClassifier`` with ``TIMMBackbone``, no neck or
    ``GlobalAveragePooling``, and ``LinearClsHead``. The comparison with the live student decides in the end.

    Raises:
        UserError: the student is no timm network, or was trained on BGR images, which timm never feeds.
    """
    if not student.normalization.rgb:
        raise UserError(
            'the student was trained on BGR images and timm feeds RGB: train with '
            'data_preprocessor.to_rgb=True. ' + _OTHERS
        )
    kind = _short(student.config)
    if kind == 'TimmClassifier':
        form = TimmForm(
            student.config['model_name'], _arguments(student.config), cast(nn.Module, student.model.model)
        )
    elif kind == 'ImageClassifier' and _short(student.config['backbone']) == 'TIMMBackbone':
        form = _assembled(student)
    else:
        parts = f'{kind} with {_short(student.config["backbone"])}' if 'backbone' in student.config else kind
        raise UserError(f'the student ({parts}) is no timm network, so timm cannot build it. {_OTHERS}')
    try:
        json.dumps(form.args)
    except TypeError as error:
        raise UserError(f'an argument of {form.name} cannot be written down ({error}). {_OTHERS}') from None
    return form


def _assembled(student: LiveStudent) -> TimmForm:
    """Backbone and linear head of an ``ImageClassifier`` as one timm classifier."""
    config = student.config
    neck, head = config.get('neck'), config.get('head') or {}
    fits = _short(head) == 'LinearClsHead' and (not neck or _short(neck) == 'GlobalAveragePooling')
    if config['backbone'].get('features_only') or not fits:
        raise UserError(
            'only TIMMBackbone(features_only=False) with GlobalAveragePooling or no neck and LinearClsHead is '
            f'a timm classifier. {_OTHERS}'
        )
    args = _arguments(config['backbone']) | {'num_classes': head['num_classes']}
    if 'in_channels' in config['backbone']:
        args['in_chans'] = config['backbone']['in_channels']
    network = timm.create_model(config['backbone']['model_name'], **args)
    classifier = cast(Callable[[], nn.Module], network.get_classifier)()
    name = next((name for name, part in network.named_modules() if part is classifier), None)
    if not isinstance(classifier, nn.Linear) or name is None:
        raise UserError(
            f'{config["backbone"]["model_name"]} has no linear classifier for the head. {_OTHERS}'
        )
    tensors = {k.removeprefix('backbone.timm_model.'): v for k, v in student.model.state_dict().items()}
    load_into(network, tensors, rename={'head.fc.': f'{name}.'}, source_name='the student')
    return TimmForm(config['backbone']['model_name'], args, network.eval())


def _arguments(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _WRAPPER_KEYS}


def _short(config: dict[str, Any]) -> str:
    return str(config.get('type', '')).rpartition('.')[2]
