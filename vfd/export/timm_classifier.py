"""The timm classifier that a student is, or that its parts make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import timm
from torch import nn

from vfd.checkpoints import load_into
from vfd.errors import UserError
from vfd.export.forms import TimmSpec
from vfd.export.student import LoadedStudent

OTHERS = 'Targets that take any student: mmpretrain, safetensors, onnx, torchscript.'
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


def classifier_form(student: LoadedStudent) -> TimmSpec:
    """Find or assemble the timm network of a classifier.

    Known: models with a ``timm_form`` of their own, such as `vfd.ViTClassifier`, mmpretrain's ``TimmClassifier``, and
    ``ImageClassifier`` with ``TIMMBackbone``, no neck or ``GlobalAveragePooling``, and ``LinearClsHead``.

    Raises:
        UserError: the student is no timm network.
    """
    kind = _short(student.config)
    if hasattr(student.model, 'timm_form'):
        name, args, state = cast(Any, student.model).timm_form()
        network = timm.create_model(name, **args)
        load_into(network, state, source_name='the student')
        return TimmSpec(name, args, network.eval(), student.output)
    if kind == 'TimmClassifier':
        network = cast(nn.Module, student.model.model)
        return TimmSpec(student.config['model_name'], _arguments(student.config), network, student.output)
    if kind == 'ImageClassifier' and _short(student.config['backbone']) == 'TIMMBackbone':
        return _assembled(student)
    parts = f'{kind} with {_short(student.config["backbone"])}' if 'backbone' in student.config else kind
    raise UserError(f'the student ({parts}) is no timm network, so timm cannot build it. {OTHERS}')


def traceable(student: LoadedStudent) -> nn.Module:
    """The network whose graph is written: timm's where it is equal, since timm keeps the batch size free in a trace."""
    if student.part == 'model' and hasattr(student.model, 'timm_form'):
        return classifier_form(student).network
    return student.model


def _assembled(student: LoadedStudent) -> TimmSpec:
    """Backbone and linear head of an ``ImageClassifier`` as one timm classifier."""
    config = student.config
    neck, head = config.get('neck'), config.get('head') or {}
    fits = _short(head) == 'LinearClsHead' and (not neck or _short(neck) == 'GlobalAveragePooling')
    if config['backbone'].get('features_only') or not fits:
        raise UserError(
            'only TIMMBackbone(features_only=False) with GlobalAveragePooling or no neck and LinearClsHead is '
            f'a timm classifier. {OTHERS}'
        )
    args = _arguments(config['backbone']) | {'num_classes': head['num_classes']}
    if 'in_channels' in config['backbone']:
        args['in_chans'] = config['backbone']['in_channels']
    network = timm.create_model(config['backbone']['model_name'], **args)
    classifier = cast(Callable[[], nn.Module], network.get_classifier)()
    name = next((name for name, part in network.named_modules() if part is classifier), None)
    if not isinstance(classifier, nn.Linear) or name is None:
        raise UserError(f'{config["backbone"]["model_name"]} has no linear classifier for the head. {OTHERS}')
    tensors = {k.removeprefix('backbone.timm_model.'): v for k, v in student.model.state_dict().items()}
    load_into(network, tensors, rename={'head.fc.': f'{name}.'}, source_name='the student')
    return TimmSpec(config['backbone']['model_name'], args, network.eval(), student.output)


def _arguments(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _WRAPPER_KEYS}


def _short(config: dict[str, Any]) -> str:
    return str(config.get('type', '')).rpartition('.')[2]
