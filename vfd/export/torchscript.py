"""TorchScript: a traced ``student.pt`` that runs without the Python code of the model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from vfd.export.student import Answer, LiveStudent, Output, Outputs
from vfd.export.timm_classifier import traceable

TOLERANCE = 1e-5
METADATA_FILE = 'vfd.json'


def check(student: LiveStudent) -> None:
    """Whether a student can be traced is seen when it is."""


def output(student: LiveStudent) -> Output:
    """What the network itself answers."""
    return student.output


def write(student: LiveStudent, folder: Path, images: Tensor) -> Path:
    """Trace and save. The image size is that of ``images``; the batch size stays free."""
    path = folder / 'student.pt'
    with _quiet(), torch.no_grad():
        traced = torch.jit.trace(Outputs(traceable(student)).eval(), images, check_trace=False)
        torch.jit.save(traced, str(path))
    return path


def annotate(artefact: Path, text: str) -> None:
    """As an extra file inside the archive, ``vfd.json``."""
    with _quiet():
        torch.jit.save(torch.jit.load(str(artefact)), str(artefact), _extra_files={METADATA_FILE: text})


def reload(artefact: Path, student: LiveStudent) -> Callable[[Tensor], Answer]:
    """Let torch load the archive."""
    with _quiet():
        return torch.jit.load(str(artefact), map_location='cpu').eval()


def snippet(artefact: Path, student: LiveStudent) -> str:
    """The lines that load it."""
    return f"import torch\nmodel = torch.jit.load('{artefact}')"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.jit announces its successor, the tracer every constant."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
