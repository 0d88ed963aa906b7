"""mmpretrain: a config and a checkpoint for ``mmpretrain.get_model``; vfd is not needed to load them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from vfd.errors import UserError
from vfd.export.forms import MMSpec
from vfd.export.mm_form import mm_form
from vfd.export.student import LoadedStudent, OutputSpec, Tensors
from vfd.export.timm_classifier import classifier_form

TOLERANCE = 1e-6
CONFIG_NAME = 'student.py'


def check(student: LoadedStudent) -> None:
    """Only students and preprocessors whose every part mmpretrain has."""
    foreign = [name for name in _types(_model(student).config) if name.startswith('vfd.')]
    if foreign or (student.scope != 'mmpretrain' and student.part == 'model'):
        raise UserError(
            f'mmpretrain cannot build this student ({", ".join(foreign) or f"a model of {student.scope}"}). '
            'Targets that can: safetensors, onnx, torchscript.'
        )


def output(student: LoadedStudent) -> OutputSpec:
    """What mmpretrain's model answers."""
    return _model(student).output


def write(student: LoadedStudent, folder: Path, images: Tensor) -> Path:
    """Write ``student.py`` and ``student.pth``."""
    model = _model(student)
    content: dict[str, Any] = {'model': model.config}
    # vfd's reader of odd images steps back to OpenMMLab's; a pipeline with other parts of vfd is left out.
    plain = {'vfd.LoadImage': {'type': 'LoadImageFromFile'}}
    pipeline = [plain.get(str(transform['type']), transform) for transform in student.pipeline]
    known = student.scope == 'mmpretrain' and all(_is_mmpretrains(name) for name in _types(pipeline))
    if pipeline and known:
        content['test_dataloader'] = {'dataset': {'type': 'CustomDataset', 'pipeline': pipeline}}
    Config(content).dump(folder / CONFIG_NAME)
    path = folder / 'student.pth'
    meta = {'dataset_meta': {'classes': student.classes}} if student.classes else {}
    torch.save({'state_dict': model.state, 'meta': meta}, path)
    return path


def annotate(artefact: Path, text: str) -> None:
    """Into the checkpoint's ``meta``, under ``vfd``."""
    checkpoint = torch.load(artefact, map_location='cpu', weights_only=True)
    checkpoint['meta']['vfd'] = json.loads(text)
    torch.save(checkpoint, artefact)


def reload(artefact: Path, student: LoadedStudent) -> Callable[[Tensor], Tensors]:
    """Let mmpretrain build the model from the written config."""
    import mmpretrain

    config = str(artefact.with_name(CONFIG_NAME))
    with contextlib.redirect_stdout(io.StringIO()):  # mmengine prints the path of the temporary folder
        return mmpretrain.get_model(config, pretrained=str(artefact), device='cpu').eval()


def snippet(artefact: Path, student: LoadedStudent) -> str:
    """The line that loads it."""
    config = artefact.with_name(CONFIG_NAME)
    lines = f"import mmpretrain\nmodel = mmpretrain.get_model('{config}', pretrained='{artefact}')"
    return lines + ('\n# model(images) is a tuple with one tensor' if student.part == 'backbone' else '')


def _model(student: LoadedStudent) -> MMSpec:
    """The model as mmpretrain builds it: a backbone becomes one without neck and head, vfd's classifier timm's."""
    if student.part == 'backbone':
        form = mm_form(student)
        config = {'type': 'ImageClassifier', 'backbone': form.config, 'data_preprocessor': _images(student)}
        return MMSpec(config, {f'backbone.{name}': value for name, value in form.state.items()}, form.output)
    preprocessor = {'data_preprocessor': student.preprocessor_config}
    if hasattr(student.model, 'timm_form'):
        timm = classifier_form(student)
        config = {'type': 'TimmClassifier', 'model_name': timm.name, **timm.args, **preprocessor}
        return MMSpec(config, timm.network.state_dict(), timm.output)
    return MMSpec(student.config | preprocessor, student.model.state_dict(), student.output)


def _images(student: LoadedStudent) -> dict[str, Any]:
    """A preprocessor of images alone; a detector's or segmentor's knows boxes and masks."""
    own = student.normalization
    known = {'mean': list(own.mean), 'std': list(own.std), 'to_rgb': own.rgb}
    return {'type': 'mmpretrain.ClsDataPreprocessor', **known}


def _is_mmpretrains(name: str) -> bool:
    return '.' not in name or name.startswith('mmpretrain.')


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
