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
from vfd.export.student import LiveStudent

TOLERANCE = 1e-6
CONFIG_NAME = 'student.py'


def check(student: LiveStudent) -> None:
    """Only students and preprocessors whose every part mmpretrain has."""
    foreign = [name for name in _types(_model_config(student)) if name.startswith('vfd.')]
    if foreign or student.scope != 'mmpretrain':
        raise UserError(
            f'mmpretrain cannot build this student ({", ".join(foreign) or f"a model of {student.scope}"}). '
            'Targets that can: safetensors, onnx, torchscript.'
        )


def write(student: LiveStudent, folder: Path, images: Tensor) -> Path:
    """Write ``student.py`` and ``student.pth``."""
    content: dict[str, Any] = {'model': _model_config(student)}
    # vfd's reader of odd images steps back to OpenMMLab's; a pipeline with other parts of vfd is left out.
    plain = {'vfd.LoadImage': {'type': 'LoadImageFromFile'}}
    pipeline = [plain.get(str(transform['type']), transform) for transform in student.pipeline]
    if pipeline and not any('.' in name and not name.startswith('mmpretrain.') for name in _types(pipeline)):
        content['test_dataloader'] = {'dataset': {'pipeline': pipeline}}
    Config(content).dump(folder / CONFIG_NAME)
    path = folder / 'student.pth'
    meta = {'dataset_meta': {'classes': student.classes}} if student.classes else {}
    torch.save({'state_dict': student.model.state_dict(), 'meta': meta}, path)
    return path


def annotate(artefact: Path, text: str) -> None:
    """Into the checkpoint's ``meta``, under ``vfd``."""
    checkpoint = torch.load(artefact, map_location='cpu', weights_only=True)
    checkpoint['meta']['vfd'] = json.loads(text)
    torch.save(checkpoint, artefact)


def reload(artefact: Path, student: LiveStudent) -> Callable[[Tensor], Tensor]:
    """Let mmpretrain build the model from the written config."""
    import mmpretrain

    config = str(artefact.with_name(CONFIG_NAME))
    with contextlib.redirect_stdout(io.StringIO()):  # mmengine prints the path of the temporary folder
        return mmpretrain.get_model(config, pretrained=str(artefact), device='cpu').eval()


def snippet(artefact: Path, student: LiveStudent) -> str:
    """The line that loads it."""
    config = artefact.with_name(CONFIG_NAME)
    return f"import mmpretrain\nmodel = mmpretrain.get_model('{config}', pretrained='{artefact}')"


def _model_config(student: LiveStudent) -> dict[str, Any]:
    return student.config | {'data_preprocessor': student.preprocessor_config}


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
