"""Detect objects with a trained student, or with what it was exported to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from vfd.apis.dense_inference import draw, onnx_input, open_model, read_rgb, run_onnx


@dataclass(frozen=True)
class Detections:
    """Objects found in an image, best first.

    Attributes:
        image: (H, W, 3) RGB uint8.
        boxes: (N, 4) x1, y1, x2, y2 in pixels of the image.
        scores: (N,).
        labels: (N,) numbers of classes.
        names: of the N classes.
        masks: (N, H, W), or None.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: list[str]
    masks: np.ndarray | None = None


class DetectionInferencer:
    """Finds objects in an image: from a checkpoint or from an export.

    Args:
        config: what the student was trained with.
        checkpoint: what training wrote, of a distiller or a plain detector.
        export: instead of both, a folder that ``vfd export --to mmdet`` or ``--to onnx`` wrote.
        classes: names; default: those that checkpoint or export know, else numbers.

    Raises:
        UserError: neither or both are given, or the student is no detector.
    """

    def __init__(
        self,
        config: str | Path | Config | None = None,
        checkpoint: str | Path | None = None,
        export: str | Path | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self._model, self._certificate = open_model('mmdet', config, checkpoint, export)
        meta = (
            {'classes': self._certificate.get('classes')} if self._model is None else self._model.dataset_meta
        )
        self.classes = list(classes or meta.get('classes') or [])
        self.palette = meta.get('palette') or 'random'

    def __call__(self, image: str | Path, threshold: float = 0.3) -> Detections:
        """Find the objects of one image file.

        Args:
            image: the file.
            threshold: the lowest score.

        Raises:
            MissingFileError: there is no such file.
        """
        pixels = read_rgb(image)
        found = self._by_onnx(pixels) if self._model is None else self._by_mmdet(image)
        keep = found[1] >= threshold
        boxes, scores, labels, *masks = (values[keep] for values in found)
        return Detections(pixels, boxes, scores, labels, self._names(labels), masks[0] if masks else None)

    def draw(self, found: Detections) -> bytes:
        """Draw boxes, masks and names over the image with mmdet's visualizer, as a PNG."""
        from mmdet.structures import DetDataSample
        from mmdet.visualization import DetLocalVisualizer
        from mmengine.structures import InstanceData

        instances = InstanceData(
            bboxes=torch.from_numpy(found.boxes),
            scores=torch.from_numpy(found.scores),
            labels=torch.from_numpy(found.labels),
        )
        if found.masks is not None:
            instances.masks = torch.from_numpy(found.masks)
        count = max([len(self.classes), *(found.labels + 1).tolist()])
        meta = {'classes': self._names(np.arange(count)), 'palette': self.palette}
        sample = DetDataSample(pred_instances=instances)
        return draw(DetLocalVisualizer, found.image, sample, meta, pred_score_thr=-1.0)

    def _names(self, labels: np.ndarray) -> list[str]:
        return [self.classes[k] if k < len(self.classes) else f'class {k}' for k in labels.tolist()]

    def _by_mmdet(self, image: str | Path) -> list[np.ndarray]:
        from mmdet.apis import inference_detector

        with DefaultScope.overwrite_default_scope('mmdet'):
            instances: Any = inference_detector(self._model, str(image)).pred_instances
        names = ['bboxes', 'scores', 'labels', *(['masks'] if 'masks' in instances else [])]
        return [instances[name].cpu().numpy() for name in names]

    def _by_onnx(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run an ONNX file; boxes and masks are in pixels of the image."""
        batch, (factor, _) = onnx_input(pixels, self._certificate, keep_ratio=True)
        boxes, scores, labels, *masks = run_onnx(self._certificate['path'], batch)
        height, width = pixels.shape[:2]
        boxes = (boxes / factor).clip(0, [width, height, width, height]).astype(np.float32)
        inside = slice(round(height * factor)), slice(round(width * factor))
        resized = [
            np.array(
                [cv2.resize(mask[inside].astype(np.uint8), (width, height)) for mask in of_all], dtype=bool
            ).reshape(-1, height, width)
            for of_all in masks
        ]
        return [boxes, scores, labels, *resized]
