"""Segment images with a trained student, or with what it was exported to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from vfd.apis.dense_inference import draw, onnx_input, open_model, read_rgb, run_onnx
from vfd.visualization.segmentation import class_colours


@dataclass(frozen=True)
class ClassMap:
    """The classes of an image's pixels.

    Attributes:
        image: (H, W, 3) RGB uint8.
        labels: (H, W) numbers of classes.
        shares: name -> share of the area, of the classes that were found, the largest first.
    """

    image: np.ndarray
    labels: np.ndarray
    shares: dict[str, float]


class SegmentationInferencer:
    """Finds the class of each pixel: from a checkpoint or from an export.

    Args:
        config: what the student was trained with.
        checkpoint: what training wrote, of a distiller or a plain segmentor.
        export: instead of both, a folder that ``vfd export --to mmseg`` or ``--to onnx`` wrote. The ONNX file takes
            images of one size, to which the whole image is resized, where the others may slide over it.
        classes: names; default: those that checkpoint or export know, else numbers.

    Raises:
        UserError: neither or both are given, or the student is no segmentor.
    """

    def __init__(
        self,
        config: str | Path | Config | None = None,
        checkpoint: str | Path | None = None,
        export: str | Path | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self._model, self._certificate = open_model('mmseg', config, checkpoint, export)
        meta = (
            {'classes': self._certificate.get('classes')} if self._model is None else self._model.dataset_meta
        )
        self.classes = list(classes or meta.get('classes') or [])
        self._palette = meta.get('palette')

    def __call__(self, image: str | Path) -> ClassMap:
        """Segment one image file.

        Args:
            image: the file.

        Raises:
            MissingFileError: there is no such file.
        """
        pixels = read_rgb(image)
        labels = self._by_onnx(pixels) if self._model is None else self._by_mmseg(image)
        numbers, counts = np.unique(labels, return_counts=True)
        order = np.argsort(-counts)
        names = self._names(int(labels.max()) + 1)
        return ClassMap(pixels, labels, {names[numbers[k]]: float(counts[k] / labels.size) for k in order})

    def draw(self, found: ClassMap) -> bytes:
        """Draw coloured classes and their names over the image with mmseg's visualizer, as a PNG."""
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample
        from mmseg.visualization import SegLocalVisualizer

        names = self._names(int(found.labels.max()) + 1)
        colours = (class_colours(len(names)) * 255).astype(int).tolist()
        sample = SegDataSample(pred_sem_seg=PixelData(data=torch.from_numpy(found.labels)[None]))
        meta = {'classes': names, 'palette': self._palette or colours}
        return draw(SegLocalVisualizer, found.image, sample, meta)

    def _names(self, count: int) -> list[str]:
        return [*self.classes, *(f'class {k}' for k in range(len(self.classes), count))]

    def _by_mmseg(self, image: str | Path) -> np.ndarray:
        from mmseg.apis import inference_model

        with DefaultScope.overwrite_default_scope('mmseg'):
            return inference_model(self._model, str(image)).pred_sem_seg.data[0].cpu().numpy()

    def _by_onnx(self, pixels: np.ndarray) -> np.ndarray:
        batch, _ = onnx_input(pixels, self._certificate, keep_ratio=False)
        logits = run_onnx(self._certificate['path'], batch)[0][0]  # (C, h, w)
        large = cv2.resize(logits.transpose(1, 2, 0), (pixels.shape[1], pixels.shape[0]))
        return large.reshape(*pixels.shape[:2], -1).argmax(-1)
