"""timm: ``config.json`` and ``model.safetensors`` for ``timm.create_model('local-dir:...')``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import timm
from torch import Tensor

from vfd.export.student import LoadedStudent, OutputSpec, Tensors
from vfd.export.tensors import annotate_tensors
from vfd.export.timm_folder import write_timm_folder
from vfd.export.timm_form import timm_form

TOLERANCE = 1e-6
annotate = annotate_tensors


def check(student: LoadedStudent) -> None:
    """Only timm networks."""
    timm_form(student)


def output(student: LoadedStudent) -> OutputSpec:
    """What the timm network answers."""
    return timm_form(student).output


def write(student: LoadedStudent, folder: Path, images: Tensor) -> Path:
    """Write the weights under timm's names, and what timm knows of a model beside them."""
    return write_timm_folder(student, folder, images)


def reload(artefact: Path, student: LoadedStudent) -> Callable[[Tensor], Tensors]:
    """Let timm build the network from the folder and load the file, strictly."""
    return timm_form(student).asking(
        timm.create_model(f'local-dir:{artefact.parent}', pretrained=True).eval()
    )


def snippet(artefact: Path, student: LoadedStudent) -> str:
    """The line that loads it: ``model.pretrained_cfg`` says how images are prepared and what the classes are."""
    call = f"timm.create_model('local-dir:{artefact.parent}', pretrained=True)"
    return '\n'.join(('import timm', f'model = {call}.eval()', *timm_form(student).usage_lines))
