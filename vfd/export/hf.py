"""Hugging Face: a folder with ``config.json`` and ``model.safetensors``, as timm publishes its models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import timm
from timm.models._hub import save_config_for_hf
from torch import Tensor

from vfd.export.student import LiveStudent
from vfd.export.tensors import annotate_tensors, write_tensors
from vfd.export.timm_form import timm_form

TOLERANCE = 1e-6


def check(student: LiveStudent) -> None:
    """Only timm networks."""
    timm_form(student)


def write(student: LiveStudent, folder: Path, images: Tensor) -> Path:
    """Write weights and configuration; the artefact is the weight file, the folder is what is loaded."""
    form = timm_form(student)
    path = folder / 'model.safetensors'
    write_tensors(form.network.state_dict(), path)
    mean = tuple(value / 255 for value in student.normalization.mean)
    std = tuple(value / 255 for value in student.normalization.std)
    config: dict = {'pretrained_cfg': {'mean': mean, 'std': std, 'input_size': tuple(images.shape[1:])}}
    if student.classes:
        config['label_names'] = student.classes
    save_config_for_hf(form.network, str(folder / 'config.json'), model_config=config, model_args=form.args)
    return path


def annotate(artefact: Path, text: str) -> None:
    """Into the weight file's metadata."""
    annotate_tensors(artefact, text)


def reload(artefact: Path, student: LiveStudent) -> Callable[[Tensor], Tensor]:
    """Let timm read the folder, as it reads one of the hub."""
    return timm.create_model(f'local-dir:{artefact.parent}', pretrained=True).eval()


def snippet(artefact: Path, student: LiveStudent) -> str:
    """The line that loads it."""
    return f"import timm\nmodel = timm.create_model('local-dir:{artefact.parent}', pretrained=True).eval()"
