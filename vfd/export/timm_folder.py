"""A folder as timm publishes its models: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from timm.models._hub import save_config_for_hf
from torch import Tensor

from vfd.export.student import LoadedStudent
from vfd.export.tensors import write_tensors
from vfd.export.timm_form import timm_form

WEIGHTS, CONFIG = 'model.safetensors', 'config.json'


def write_timm_folder(student: LoadedStudent, folder: Path, images: Tensor) -> Path:
    """Write weights and configuration.

    ``pretrained_cfg`` holds what ``timm.data.resolve_data_config`` reads: the student's input size, mean, std, crop and
    interpolation; and class names.

    Returns:
        The path of the weights.
    """
    form = timm_form(student)
    path = folder / WEIGHTS
    write_tensors(form.network.state_dict(), path)
    mean, std = student.normalization.mean, student.normalization.std
    known: dict[str, Any] = {
        'input_size': tuple(images.shape[1:]),
        'mean': tuple(value / 255 for value in mean),
        'std': tuple(value / 255 for value in std),
        **crop(student.pipeline),
    }
    names = {'label_names': student.classes} if student.classes and student.part == 'model' else {}
    target = folder / CONFIG
    save_config_for_hf(form.network, str(target), model_config=names, model_args=form.args)
    written = json.loads(target.read_text())
    for key in ('test_input_size', 'test_crop_pct'):  # of timm's own weights of this architecture
        written['pretrained_cfg'].pop(key, None)
    written['pretrained_cfg'] |= known
    if student.part == 'model':  # transformers takes the number from the top level, once
        written.get('model_args', {}).pop('num_classes', None)
    target.write_text(json.dumps(written, indent=2) + '\n', encoding='utf-8')
    return path


def crop(pipeline: list[dict[str, Any]]) -> dict[str, Any]:
    """How a test pipeline of mmpretrain cuts images, in timm's words.

    A centre crop from a shorter side is ``crop_pct`` and ``center``; a resize of both sides is ``squash``. Images that
    come in their size are not cut.
    """
    steps = {str(step['type']).rpartition('.')[2]: step for step in pipeline}
    resize = steps.get('ResizeEdge') or steps.get('Resize') or {}
    described = {'interpolation': str(resize.get('interpolation', 'bilinear'))} if resize else {}
    side, edge = _side(steps.get('CenterCrop', {}).get('crop_size')), _side(resize.get('scale'))
    if side and edge and 'ResizeEdge' in steps:
        return described | {'crop_pct': side / edge, 'crop_mode': 'center'}
    squash = 'Resize' in steps and not resize.get('keep_ratio') and not side
    return described | {'crop_pct': 1.0, 'crop_mode': 'squash' if squash else 'center'}


def _side(size: Any) -> int | None:
    """One side of a size; None where there is none."""
    return int(size[0] if isinstance(size, (list, tuple)) else size) if size else None
