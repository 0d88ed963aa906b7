"""Hugging Face: a folder with ``config.json`` and ``model.safetensors``, as timm publishes its models.

timm reads it (``local-dir:``), and for classifiers so does
``transformers.AutoModelForImageClassification.from_pretrained``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import timm
from torch import Tensor

from vfd.export.student import LoadedStudent, OutputSpec, Tensors
from vfd.export.tensors import annotate_tensors
from vfd.export.timm_folder import write_timm_folder
from vfd.export.timm_form import timm_form

TOLERANCE = 1e-6


def check(student: LoadedStudent) -> None:
    """Only timm networks."""
    timm_form(student)


def output(student: LoadedStudent) -> OutputSpec:
    """What the timm network answers."""
    return timm_form(student).output


def write(student: LoadedStudent, folder: Path, images: Tensor) -> Path:
    """Write weights and configuration; the artefact is the weight file, the folder is what is loaded."""
    return write_timm_folder(student, folder, images)


def annotate(artefact: Path, text: str) -> None:
    """Into the weight file's metadata."""
    annotate_tensors(artefact, text)


def reload(artefact: Path, student: LoadedStudent) -> Callable[[Tensor], Tensors]:
    """Read the folder as one of the hub: a classifier by transformers where it is installed, all else by timm."""
    if student.part == 'model' and _has_transformers():
        from transformers import AutoModelForImageClassification

        model = AutoModelForImageClassification.from_pretrained(artefact.parent).eval()
        return lambda images: model(images).logits
    network = timm.create_model(f'local-dir:{artefact.parent}', pretrained=True).eval()
    return timm_form(student).asking(network)


def snippet(artefact: Path, student: LoadedStudent) -> str:
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
