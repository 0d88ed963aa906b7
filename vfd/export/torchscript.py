"""TorchScript: a traced ``student.pt`` that runs without the Python code of the model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from vfd.errors import UserError
from vfd.export.example_inputs import named_inputs
from vfd.export.student import LoadedStudent, OutputSpec, TensorFunction, Tensors
from vfd.export.timm_classifier import traceable

TOLERANCE = 1e-5
METADATA_FILE = 'vfd.json'


def check(student: LoadedStudent) -> None:
    """Whether a network can be traced is seen when it is; what a detector does with its boxes cannot."""
    if student.is_detector:
        raise UserError('a trace cannot hold how a detector chooses its boxes. Use --to onnx or --to mmdet.')


def output(student: LoadedStudent) -> OutputSpec:
    """What the network itself answers."""
    return student.output


def write(student: LoadedStudent, folder: Path, images: Any) -> Path:
    """Trace and save. The image size is that of ``images``; the batch size stays free."""
    path = folder / 'student.pt'
    names = tuple(images) if isinstance(images, dict) else None
    with _quiet(), torch.no_grad():
        function = TensorFunction(traceable(student), names).eval()
        traced = torch.jit.trace(function, tuple(named_inputs(images).values()), check_trace=False)
        torch.jit.save(traced, str(path))
    return path


def annotate(artefact: Path, text: str) -> None:
    """As an extra file inside the archive, ``vfd.json``."""
    with _quiet():
        torch.jit.save(torch.jit.load(str(artefact)), str(artefact), _extra_files={METADATA_FILE: text})


def reload(artefact: Path, student: LoadedStudent) -> Callable[[Any], Tensors]:
    """Let torch load the archive; several inputs are its arguments in order."""
    with _quiet():
        model = torch.jit.load(str(artefact), map_location='cpu').eval()
    return lambda inputs: model(*named_inputs(inputs).values())


def snippet(artefact: Path, student: LoadedStudent) -> str:
    """The lines that load it."""
    return f"import torch\nmodel = torch.jit.load('{artefact}')"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.jit announces its successor, the tracer every constant."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
