"""Plain weights: ``student.safetensors`` under the names of the student's config."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from mmengine.registry import DefaultScope
from torch import Tensor

from vfd.checkpoints import load_into, load_state
from vfd.export.student import LiveStudent
from vfd.export.tensors import annotate_tensors, write_tensors
from vfd.registry import MODELS

TOLERANCE = 1e-6
annotate = annotate_tensors


def check(student: LiveStudent) -> None:
    """Every student has weights."""


def write(student: LiveStudent, folder: Path, images: Tensor) -> Path:
    """Write the student's state dict."""
    path = folder / 'student.safetensors'
    write_tensors(student.model.state_dict(), path)
    return path


def reload(artefact: Path, student: LiveStudent) -> Callable[[Tensor], Tensor]:
    """Load the file into a new student."""
    with DefaultScope.overwrite_default_scope(student.scope):
        model = MODELS.build(copy.deepcopy(student.config))
    load_into(model, load_state(artefact))
    return model.eval()


def snippet(artefact: Path, student: LiveStudent) -> str:
    """The lines that load it into a student built from the config."""
    return (
        'from vfd.checkpoints import load_into, load_state\n'
        f"load_into(model, load_state('{artefact}'))  # model: the student of the config"
    )
