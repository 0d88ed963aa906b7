"""A whole detector or segmentor as a plain config and checkpoint of mmdet or mmseg."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from vfd.compat import compiled_available, transformers5
from vfd.errors import UserError
from vfd.export.student import LoadedStudent, Tensors
from vfd.registry import DATASETS, MODELS

CONFIG_NAME = 'student.py'
REPAIRS = 'vfd.compat.installed'
# Of each package: the data set that needs no files of its own, the visualizer and its hook.
_PARTS = {
    'mmdet': ('BaseDetDataset', 'DetLocalVisualizer', 'DetVisualizationHook'),
    'mmseg': ('BaseSegDataset', 'SegLocalVisualizer', 'SegVisualizationHook'),
}
# What differs for odd image files alone.
_PLAIN = {'vfd.LoadImage': {'type': 'LoadImageFromFile'}}


def write_model(student: LoadedStudent, package: str, folder: Path) -> Path:
    """Write ``student.py`` and ``student.pth``, as ``init_detector``, ``init_model`` and tools/test.py load them."""
    config = model_config(student, package)
    config.dump(folder / CONFIG_NAME)
    path = folder / 'student.pth'
    meta = {'dataset_meta': dataset_meta(config, student)}
    torch.save({'state_dict': student.model.state_dict(), 'meta': meta}, path)
    return path


def reload_model(artefact: Path, student: LoadedStudent, package: str) -> Callable[[Any], Tensors]:
    """Let the package load both files with its own function."""
    return student.asking(init(artefact, package))


def init(artefact: Path, package: str) -> Any:
    """The model of an exported checkpoint, built by the package's own function."""
    config = str(artefact.with_name(CONFIG_NAME))
    with DefaultScope.overwrite_default_scope(package), contextlib.redirect_stdout(io.StringIO()):
        if package == 'mmdet':
            from mmdet.apis import init_detector

            return init_detector(config, str(artefact), device='cpu')
        from mmseg.apis import init_model

        return init_model(config, str(artefact), device='cpu')


def package_model(student: LoadedStudent, package: str) -> Any:
    """The live student as ``inference_detector`` and ``inference_model`` take it: with its config and class names."""
    model: Any = student.model
    model.data_preprocessor = student.preprocessor
    model.cfg = model_config(student, package)
    model.dataset_meta = dataset_meta(model.cfg, student)
    return model


def snippet(artefact: Path, package: str) -> str:
    """The lines that load it and use it on an image."""
    lines = [f'import {REPAIRS}  # before mmdet or mmseg'] if repairs_needed() else []
    config = artefact.with_name(CONFIG_NAME)
    init_name, use = {
        'mmdet': ('init_detector', 'inference_detector'),
        'mmseg': ('init_model', 'inference_model'),
    }[package]
    return '\n'.join(
        [
            *lines,
            f'from {package}.apis import {use}, {init_name}',
            f"model = {init_name}('{config}', '{artefact}', device='cpu')",
            f"# result = {use}(model, 'image.jpg')",
        ]
    )


def model_config(student: LoadedStudent, package: str) -> Config:
    """The config of the model, its test data and its evaluation, with the package's own types.

    Raises:
        UserError: the training config says nothing of test images, or a part of the model is of a method.
    """
    model = _plain(student.config | {'data_preprocessor': student.preprocessor_config}, package)
    training = student.training_config
    loader = training.get('test_dataloader') or training.get('val_dataloader')
    if not loader or not student.pipeline:
        raise UserError(
            f'{package} prepares images with the test data set of a config, and this one has none: add a '
            'test_dataloader whose dataset has a pipeline'
        )
    kind, visualizer, hook = _PARTS[package]
    pipeline = _plain(student.pipeline, package)
    loader = _plain(loader.to_dict(), package)
    content: dict[str, Any] = {'default_scope': package}
    if imports := _imports(model):
        content['custom_imports'] = {'imports': imports, 'allow_failed_imports': False}
    content |= {'model': model, 'test_pipeline': pipeline}
    foreign = [name for name in _types(pipeline) if name.startswith('vfd.')]
    if foreign:
        raise UserError(
            f'{package} has no {", ".join(foreign)}, which the test pipeline of the config names: take transforms of '
            f'{package} there'
        )
    evaluator = training.get('test_evaluator') or training.get('val_evaluator')
    evaluator = _plain(ConfigDict(evaluator=evaluator).to_dict()['evaluator'], package)
    if any(name.startswith('vfd.') for name in _types([loader, evaluator])):
        names = {'classes': tuple(student.classes)} if student.classes else {}
        content['test_dataloader'] = {'dataset': {'type': kind, 'metainfo': names, 'pipeline': pipeline}}
    else:
        content['test_dataloader'] = loader
        if evaluator:
            content |= {'test_evaluator': evaluator, 'test_cfg': {'type': 'TestLoop'}}
    content['default_hooks'] = {'visualization': {'type': hook}}
    content['visualizer'] = {
        'type': visualizer,
        'name': 'visualizer',
        'vis_backends': [{'type': 'LocalVisBackend'}],
    }
    content['work_dir'] = 'work_dirs/student'
    return Config(content)


def dataset_meta(config: Config, student: LoadedStudent) -> dict[str, Any]:
    """Class names and colours: those of the training's checkpoint before those of the written data set."""
    with DefaultScope.overwrite_default_scope(config.default_scope):
        known = DATASETS.build(config.test_dataloader.dataset | {'lazy_init': True}).metainfo
    classes, palette = student.classes or known.get('classes'), known.get('palette')
    meta: dict[str, Any] = {'classes': tuple(classes)} if classes else {}
    return meta | ({'palette': [tuple(colour) for colour in palette]} if palette else {})


def _imports(model: dict[str, Any]) -> list[str]:
    """What has to be imported before the package can build the model: where vfd's own networks are."""
    rooms = set()
    for name in _types(model):
        if name.startswith('vfd.'):
            module = MODELS.get(name).__module__
            room = '.'.join(module.split('.')[:2]) if module.startswith('vfd.') else 'vfd.backbones'
            if room in ('vfd.methods', 'vfd.teachers'):
                raise UserError(
                    f'{name} is a part of a method, which an exported model does without: --part backbone'
                )
            rooms.add(room)
    return sorted(rooms) or ([REPAIRS] if repairs_needed() else [])  # vfd's networks bring the repairs


def repairs_needed() -> bool:
    """Whether the packages cannot be imported here without `vfd.compat`: no compiled mmcv, or a new transformers."""
    return not compiled_available() or transformers5.needed()


def _plain(node: Any, package: str) -> Any:
    """A copy whose types of ``package`` go without scope, as its own functions look for them."""
    if isinstance(node, (list, tuple)):
        return type(node)(_plain(item, package) for item in node)
    if not isinstance(node, dict):
        return copy.deepcopy(node)
    if node.get('type') in _PLAIN:
        return dict(_PLAIN[node['type']])
    plain = {key: _plain(value, package) for key, value in node.items()}
    if isinstance(plain.get('type'), str):
        plain['type'] = plain['type'].removeprefix(f'{package}.')
    return plain


def _types(node: Any) -> Iterator[str]:
    """Every ``type`` in a config."""
    if isinstance(node, dict):
        if 'type' in node:
            yield str(node['type'])
        for value in node.values():
            yield from _types(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _types(value)
