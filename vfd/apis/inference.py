"""Classify images with a trained student, or with what it was exported to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from vfd.apis.config import load_config
from vfd.compat import require
from vfd.datasets import read_image
from vfd.errors import MissingFileError, UserError
from vfd.export.images import real_images
from vfd.export.student import live_student
from vfd.teachers import Normalization


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
    """Predicts the best classes of an image: from a checkpoint or from an export.

    Args:
        config: what the student was trained with.
        checkpoint: what training wrote.
        export: instead of both, a folder that ``vfd export --to timm``, ``onnx`` or ``torchscript`` wrote.
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
            raise UserError('give a config and a checkpoint, or the folder of an export')
        self._forward: Callable[[str | Path], Tensor]
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

        Raises:
            MissingFileError: there is no such file.
            UserError: it is no image, or the names do not match the number of classes.
        """
        if not Path(image).is_file():
            raise MissingFileError(f'no image at {image}')
        with torch.no_grad():
            probabilities = self._forward(image).softmax(-1)  # (C,)
        if self.classes and len(self.classes) != len(probabilities):
            raise UserError(
                f'{len(self.classes)} class names for a network with {len(probabilities)} classes'
            )
        best = probabilities.topk(min(top, len(probabilities)))
        names = [self.classes[i] if self.classes else f'class {i}' for i in best.indices.tolist()]
        return Prediction(np.ascontiguousarray(read_image(image)[..., ::-1]), names, best.values.tolist())


def read_certificate(folder: Path) -> dict[str, Any]:
    """Read the certificate of an export.

    Raises:
        MissingFileError: the folder is no export.
    """
    path = folder / 'certificate.json'
    if not path.is_file():
        raise MissingFileError(f'{folder} has no certificate.json, so it is no export of vfd')
    return json.loads(path.read_text(encoding='utf-8'))


def _exported(folder: Path) -> tuple[Callable[[str | Path], Tensor], list[str] | None]:
    """Return a function from image file to logits (C,), and the class names."""
    certificate = read_certificate(folder)
    artefact, target = folder / certificate['artefact'], certificate['target']
    if target not in _NETWORKS:
        raise UserError(f'{folder} is an export to {target}; this reads {", ".join(_NETWORKS)}')
    if certificate.get('part', 'model') != 'model':
        raise UserError(
            f'{folder} holds a backbone without its classifier: export with --part model, of a training with classes'
        )
    network = _NETWORKS[target](artefact, certificate)
    described = certificate['preprocessing']
    return lambda image: network(_as_input(image, described))[0], certificate['classes']


def _timm(artefact: Path, certificate: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """Build the timm model with the arguments that the certificate records."""
    import timm

    student = certificate['student']
    return timm.create_model(student['network'], checkpoint_path=str(artefact), **student['arguments']).eval()


def _onnx(artefact: Path, certificate: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    require('onnxruntime')
    import onnxruntime

    session = onnxruntime.InferenceSession(str(artefact), providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def _torchscript(artefact: Path, certificate: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    return torch.jit.load(str(artefact))


_NETWORKS = {'timm': _timm, 'onnx': _onnx, 'torchscript': _torchscript}


def _as_input(image: str | Path, preprocessing: dict[str, Any]) -> Tensor:
    """Return the input (1, 3, H, W) float32 that the certificate describes."""
    pixels = read_image(image)  # BGR
    height, width = preprocessing['size'][-2:]
    if pixels.shape[:2] != (height, width):
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    wanted = Normalization(
        tuple(preprocessing['mean']), tuple(preprocessing['std']), preprocessing['channel_order'] == 'RGB'
    )
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    return Normalization(rgb=False).convert(batch, wanted)
