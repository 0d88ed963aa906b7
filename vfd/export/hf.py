"""Hugging Face: a folder with ``config.json`` and ``model.safetensors``, as timm publishes its models.

timm reads it (``local-dir:``), and for classifiers so does
``transformers.AutoModelForImageClassification.from_pretrained``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import timm
from timm.models._hub import save_config_for_hf
from torch import Tensor

from vfd.export.student import Answer, LiveStudent, Output
from vfd.export.tensors import annotate_tensors, write_tensors
from vfd.export.timm_form import timm_form

TOLERANCE = 1e-6


def check(student: LiveStudent) -> None:
    """Only timm networks."""
    timm_form(student)


def output(student: LiveStudent) -> Output:
    """What the timm network answers."""
    return timm_form(student).output


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
    config_path = folder / 'config.json'
    save_config_for_hf(form.network, str(config_path), model_config=config, model_args=form.args)
    written = json.loads(config_path.read_text())
    if student.part == 'model':  # transformers takes the number from the top level, once
        written.get('model_args', {}).pop('num_classes', None)
    config_path.write_text(json.dumps(written, indent=2) + '\n', encoding='utf-8')
    return path


def annotate(artefact: Path, text: str) -> None:
    """Into the weight file's metadata."""
    annotate_tensors(artefact, text)


def reload(artefact: Path, student: LiveStudent) -> Callable[[Tensor], Answer]:
    """Read the folder as one of the hub: a classifier by transformers where it is installed, all else by timm."""
    if student.part == 'model' and _has_transformers():
        from transformers import AutoModelForImageClassification

        model = AutoModelForImageClassification.from_pretrained(artefact.parent).eval()
        return lambda images: model(images).logits
    network = timm.create_model(f'local-dir:{artefact.parent}', pretrained=True).eval()
    return timm_form(student).asking(network)


def snippet(artefact: Path, student: LiveStudent) -> str:
    """The line that loads it."""
    call = f"timm.create_model('local-dir:{artefact.parent}', pretrained=True)"
    return '\n'.join(('import timm', f'model = {call}.eval()', *timm_form(student).usage_lines))


def _has_transformers() -> bool:
    """Whether a transformers is installed that knows timm's folders (4.48 and later)."""
    try:
        major, minor = metadata.version('transformers').split('.')[:2]
    except metadata.PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= (4, 48)
