"""Classify images with a trained student, or with what it was exported to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config

from vfd.apis.config import load_config
from vfd.compat import require
from vfd.datasets import read_image
from vfd.errors import MissingFileError, UserError
from vfd.export.images import real_images
from vfd.export.student import live_student


@dataclass(frozen=True)
class Prediction:
    """The best classes of an image.

    Attributes:
        image: (H, W, 3) RGB uint8.
        names: of the classes, the best first.
        scores: their probabilities.
    """

    image: np.ndarray
    names: list[str]
    scores: list[float]


class ImageClassificationInferencer:
    """Answers with the best classes of an image: from a checkpoint or from an export.

    Args:
        config: what the student was trained with.
        checkpoint: what training wrote.
        export: instead of both, a folder that ``vfd export --to onnx`` or ``--to torchscript`` wrote.
        classes: names; default: those that checkpoint or export know, else numbers.

    Raises:
        UserError: neither or both are given, or the export is of another form.
    """

    def __init__(
        self,
        config: str | Path | Config | None = None,
        checkpoint: str | Path | None = None,
        export: str | Path | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        if (export is None) == (checkpoint is None) or (config is None) != (checkpoint is None):
            raise UserError('give config and checkpoint, or the folder of an export')
        self._forward: Any
        if export is not None:
            self._forward, known = _exported(Path(export))
        else:
            assert config is not None and checkpoint is not None
            loaded = config if isinstance(config, Config) else load_config(config)
            student = live_student(loaded, checkpoint)
            known = student.classes
            self._forward = lambda image: student(real_images(loaded, student, [image])[0])[0]
        self.classes = list(classes or known or [])

    def __call__(self, image: str | Path, top: int = 5) -> Prediction:
        """Classify one image file.

        Args:
            image: the file.
            top: how many classes are wanted.
        """
        with torch.no_grad():
            probabilities = torch.as_tensor(self._forward(image)).softmax(-1)
        if self.classes and len(self.classes) != len(probabilities):
            raise UserError(f'{len(self.classes)} class names for {len(probabilities)} classes')
        best = probabilities.topk(min(top, len(probabilities)))
        names = [self.classes[i] if self.classes else f'class {i}' for i in best.indices.tolist()]
        return Prediction(np.ascontiguousarray(read_image(image)[..., ::-1]), names, best.values.tolist())


def _exported(folder: Path) -> tuple[Any, list[str] | None]:
    """A function from image file to logits (C,), and the class names."""
    path = folder / 'certificate.json'
    if not path.is_file():
        raise MissingFileError(f'{folder} has no certificate.json, so it is no export of vfd')
    certificate = json.loads(path.read_text(encoding='utf-8'))
    artefact, size = folder / certificate['artefact'], certificate['preprocessing']
    if certificate['target'] == 'onnx':
        require('onnxruntime')
        import onnxruntime

        session = onnxruntime.InferenceSession(str(artefact), providers=['CPUExecutionProvider'])
        name = session.get_inputs()[0].name
        return lambda image: session.run(None, {name: _as_input(image, size)})[0][0], certificate['classes']
    if certificate['target'] == 'torchscript':
        script = torch.jit.load(str(artefact))
        return lambda image: script(torch.from_numpy(_as_input(image, size)))[0], certificate['classes']
    raise UserError(f'{folder} is an export to {certificate["target"]}; this reads onnx and torchscript')


def _as_input(image: str | Path, preprocessing: dict[str, Any]) -> np.ndarray:
    """(1, 3, H, W) float32 as the certificate describes."""
    _, height, width = preprocessing['size']
    pixels = cv2.resize(read_image(image), (width, height), interpolation=cv2.INTER_AREA)
    if preprocessing['channel_order'] == 'RGB':
        pixels = pixels[..., ::-1]
    values = (pixels.astype(np.float32) - np.float32(preprocessing['mean'])) / np.float32(
        preprocessing['std']
    )
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])
