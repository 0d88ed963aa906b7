"""Shared parts of the detection and segmentation of single images: model, classes, picture."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from vfd.apis.config import load_config
from vfd.apis.inference import read_certificate
from vfd.compat import require
from vfd.datasets import read_image
from vfd.errors import MissingFileError, UserError
from vfd.export.detections import is_detector, is_segmentor
from vfd.export.student import live_student
from vfd.export.whole_model import init, package_model
from vfd.teachers import Normalization

_KINDS: dict[str, tuple[str, Callable]] = {
    'mmdet': ('detector', is_detector),
    'mmseg': ('segmentor', is_segmentor),
}


def open_model(
    package: str,
    config: str | Path | Config | None,
    checkpoint: str | Path | None,
    export: str | Path | None,
) -> tuple[Any, dict[str, Any]]:
    """Open a model of mmdet or mmseg, or the certificate of an ONNX file.

    Args:
        package: ``mmdet`` or ``mmseg``.
        config: what the student was trained with.
        checkpoint: what training wrote.
        export: instead of both, a folder that ``vfd export --to mmdet``, ``mmseg`` or ``onnx`` wrote.

    Returns:
        The model (None for ONNX), and the certificate (empty for a checkpoint).

    Raises:
        UserError: neither or both are given, or the student is of another kind.
    """
    require(package)
    if (export is None) == (checkpoint is None) or (config is None) != (checkpoint is None):
        raise UserError('give a config and a checkpoint, or the folder of an export')
    kind, fits = _KINDS[package]
    if export is None:
        assert config is not None and checkpoint is not None
        loaded = config if isinstance(config, Config) else load_config(config)
        student = live_student(loaded, checkpoint)
        if not fits(student.model):
            raise UserError(f'the student is no {kind} of {package} but a {type(student.model).__name__}')
        return package_model(student, package), {}
    certificate = read_certificate(Path(export))
    if certificate['part'] != 'model' or certificate['target'] not in (package, 'onnx'):
        raise UserError(
            f'{export} is the {certificate["part"]} of an export to {certificate["target"]}; '
            f'this reads a whole {kind}: '
            f'--to {package} or --to onnx, --part model'
        )
    artefact = Path(export) / certificate['artefact']
    if certificate['target'] == 'onnx':
        return None, certificate | {'path': artefact}
    return init(artefact, package), certificate


def read_rgb(image: str | Path) -> np.ndarray:
    """Read the pixels of a file, (H, W, 3) uint8.

    Raises:
        MissingFileError: there is no such file.
    """
    if not Path(image).is_file():
        raise MissingFileError(f'no image at {image}')
    return np.ascontiguousarray(read_image(image)[..., ::-1])


def onnx_input(
    pixels: np.ndarray, certificate: dict[str, Any], keep_ratio: bool
) -> tuple[np.ndarray, tuple[float, float]]:
    """Prepare an image for an ONNX file.

    Args:
        pixels: (H, W, 3) RGB uint8.
        certificate: of the export.
        keep_ratio: resize both sides alike and fill up with zeros at the right and the bottom, as detectors do.

    Returns:
        (1, 3, h, w) float32, and the factors (x, y) by which the image was resized.
    """
    described = certificate['preprocessing']
    height, width = described['size'][-2:]
    factors = (width / pixels.shape[1], height / pixels.shape[0])
    if keep_ratio:
        factors = (min(factors),) * 2
    resized = cv2.resize(pixels, (round(pixels.shape[1] * factors[0]), round(pixels.shape[0] * factors[1])))
    wanted = Normalization(
        tuple(described['mean']), tuple(described['std']), described['channel_order'] == 'RGB'
    )
    batch = torch.from_numpy(resized).permute(2, 0, 1)[None].float()
    filled = np.zeros((1, 3, height, width), dtype=np.float32)
    filled[:, :, : resized.shape[0], : resized.shape[1]] = Normalization().convert(batch, wanted).numpy()
    return filled, factors


def run_onnx(path: Path, images: np.ndarray) -> list[np.ndarray]:
    """Run an ONNX file in onnxruntime and return its outputs."""
    require('onnxruntime')
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider']).run(
        None, {'images': images}
    )


def draw(visualizer: Any, pixels: np.ndarray, sample: Any, meta: dict[str, Any], **options: Any) -> bytes:
    """Draw a PNG with the visualizer of a package.

    Args:
        visualizer: class of mmdet's or mmseg's local visualizer.
        pixels: (H, W, 3) RGB uint8.
        sample: with predictions.
        meta: class names and colours.
        options: of ``add_datasample``.
    """
    with tempfile.TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope('mmengine'):
        file = Path(folder) / 'picture.png'
        drawn = visualizer(vis_backends=None, save_dir=None)
        drawn.dataset_meta = meta
        drawn.add_datasample('image', pixels, sample, draw_gt=False, out_file=str(file), **options)
        return file.read_bytes()
