"""What every export target answers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

from vfd.errors import UserError, did_you_mean
from vfd.export.student import LoadedStudent, OutputSpec, Tensors

TARGETS = ('timm', 'mmpretrain', 'mmdet', 'mmseg', 'hf', 'safetensors', 'onnx', 'torchscript')
ANY_INPUT = ('safetensors', 'onnx', 'torchscript')  # also students that do not read images


class Target(Protocol):
    """One target: a module, or the ``TARGET`` in it.

    It may have ``batches(artefact, student, images)`` too, which gives what is compared; default: two batch sizes.

    Attributes:
        TOLERANCE: largest error allowed, as a fraction of the largest output (at least of 1).
    """

    TOLERANCE: float

    def check(self, student: LoadedStudent) -> None:
        """Raise `UserError` when this student has no form in the target, or `MissingPackageError`."""

    def output(self, student: LoadedStudent) -> OutputSpec:
        """What the artefact answers, from the live student."""

    def write(self, student: LoadedStudent, folder: Path, images: Any) -> Path:
        """Write the artefact into ``folder`` and return its path; ``images`` is a normalised batch, or other inputs."""

    def annotate(self, artefact: Path, text: str) -> None:
        """Put the certificate's JSON text into the artefact's own metadata."""

    def reload(self, artefact: Path, student: LoadedStudent) -> Callable[[Any], Tensors]:
        """Load the artefact as its target does: normalised images (B, 3, H, W) or other inputs in, outputs out."""

    def snippet(self, artefact: Path, student: LoadedStudent) -> str:
        """Python lines that load the artefact."""


def load_target(name: str) -> Target:
    """A target by its name.

    Raises:
        UserError: there is no such target.
    """
    if name not in TARGETS:
        raise UserError(
            f'no export target "{name}"{did_you_mean(name, TARGETS)}; targets: {", ".join(TARGETS)}'
        )
    module = importlib.import_module(f'vfd.export.{name}')
    return cast(Target, getattr(module, 'TARGET', module))
