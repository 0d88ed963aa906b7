"""timm: ``model.safetensors`` for ``timm.create_model(..., checkpoint_path=...)``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import timm
from torch import Tensor

from vfd.export.student import Answer, LiveStudent, Output
from vfd.export.tensors import annotate_tensors, write_tensors
from vfd.export.timm_form import timm_form

TOLERANCE = 1e-6
annotate = annotate_tensors


def check(student: LiveStudent) -> None:
    """Only timm networks."""
    timm_form(student)


def output(student: LiveStudent) -> Output:
    """What the timm network answers."""
    return timm_form(student).output


def write(student: LiveStudent, folder: Path, images: Tensor) -> Path:
    """Write the weights under timm's names."""
    path = folder / 'model.safetensors'
    write_tensors(timm_form(student).network.state_dict(), path)
    return path


def reload(artefact: Path, student: LiveStudent) -> Callable[[Tensor], Answer]:
    """Let timm build the network and load the file, strictly."""
    form = timm_form(student)
    return form.asking(timm.create_model(form.name, checkpoint_path=str(artefact), **form.args).eval())


def snippet(artefact: Path, student: LiveStudent) -> str:
    """The line that loads it."""
    form = timm_form(student)
    call = f"'{form.name}'{form.call}, checkpoint_path='{artefact}'"
    return '\n'.join(('import timm', f'model = timm.create_model({call}).eval()', *form.usage_lines))
