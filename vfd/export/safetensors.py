"""Plain weights: ``student.safetensors`` under the names of the student's config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from vfd.checkpoints import load_into, load_state
from vfd.export.student import LoadedStudent, OutputSpec, Tensors
from vfd.export.tensors import annotate_tensors, write_tensors

TOLERANCE = 1e-6
annotate = annotate_tensors


def check(student: LoadedStudent) -> None:
    """Every student has weights."""


def output(student: LoadedStudent) -> OutputSpec:
    """What the network itself answers."""
    return student.output


def write(student: LoadedStudent, folder: Path, images: Tensor) -> Path:
    """Write the student's state dict."""
    path = folder / 'student.safetensors'
    write_tensors(student.model.state_dict(), path)
    return path


def reload(artefact: Path, student: LoadedStudent) -> Callable[[Tensor], Tensors]:
    """Load the file into a new student."""
    model = student.rebuild()
    load_into(model, load_state(artefact))
    model.eval()  # of OpenMMLab's backbones this returns None
    return student.asking(model)


def snippet(artefact: Path, student: LoadedStudent) -> str:
    """The lines that load it; a whole model is built from the config that it was trained with."""
    load = f"load_into(model, load_state('{artefact}'))"
    lines = ['from vfd.checkpoints import load_into, load_state']
    if student.part == 'model':
        return '\n'.join([*lines, f'{load}  # model: the student of the config'])
    if student.timm is not None:
        lines += [
            'import timm',
            f"model = timm.create_model('{student.timm.name}'{student.timm.call}).eval()",
        ]
    else:
        lines += [
            'from vfd.registry import MODELS',
            f'model = MODELS.build({student.config!r})',
            'model.eval()',
        ]
    return '\n'.join([*lines, load])
