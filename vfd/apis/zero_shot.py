"""Segment one image by class names, with a distilled CLIP: from a config of zero-shot segmentation and a checkpoint."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from vfd.apis.config import load_config
from vfd.apis.device import choose_device
from vfd.checkpoints import load_state
from vfd.datasets import read_image
from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.evaluation.zero_shot_segmentation import ZeroShotSegmentor
from vfd.registry import MODELS, TRANSFORMS


@dataclass(frozen=True)
class Segmentation:
    """An image and the class of every pixel.

    Attributes:
        image: (H, W, 3) RGB uint8.
        labels: (H, W) int64, classes.
        names: of the classes; the first of several.
    """

    image: np.ndarray
    labels: np.ndarray
    names: list[str]

    @property
    def shares(self) -> dict[str, float]:
        """Name and share of the area of the classes that were found, the largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names)) / self.labels.size
        return {self.names[i]: float(counts[i]) for i in np.argsort(-counts, kind='stable') if counts[i]}


class ZeroShotSegmentationInferencer:
    """Segments images by names.

    Args:
        config: with a :class:`vfd.ZeroShotSegmentor`.
        checkpoint: of a distillation, or a released file; None takes the weights that the config names.
        class_names: list or file of names; default: the config's. Names of one class are separated by ``', '``.
        prob_thd: pixels whose best class is less likely become the first class; default: the config's with its own
            names, 0 with others.
        allow_random: accept a text tower or a backbone without trained weights, whose outputs mean nothing.
        device: where the network runs; default: the GPU if there is one.

    Raises:
        UserError: another kind of config, random weights that were not allowed, or a checkpoint that does not fit.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        class_names: str | Path | Sequence[str] | None = None,
        prob_thd: float | None = None,
        allow_random: bool = False,
        device: str | None = None,
    ) -> None:
        cfg = config if isinstance(config, Config) else load_config(config)
        settings: Any = copy.deepcopy(cfg.get('model') or {})
        kind = MODELS.get(str(settings.get('type')))
        if not (inspect.isclass(kind) and issubclass(kind, ZeroShotSegmentor)):
            raise UserError(
                f'{cfg.filename or "the config"} has no vfd.ZeroShotSegmentor as its model; take one of '
                'configs/ph_reg/zero-shot_*.py'
            )
        _refuse_random(settings, checkpoint, allow_random)
        if allow_random and settings.backbone.get('checkpoint') is None:
            settings.backbone.checkpoint = 'random'
        if class_names is not None:
            settings['class_names'] = class_names
            settings['prob_thd'] = 0.0
        if prob_thd is not None:
            settings['prob_thd'] = prob_thd
        scope = cfg.get('default_scope') or 'mmseg'
        steps = [
            step
            for step in cfg.test_dataloader.dataset.pipeline
            if not str(step['type']).endswith('LoadAnnotations')
        ]
        with DefaultScope.overwrite_default_scope(scope):
            self.model: Any = MODELS.build(settings).eval()
            self.pipeline = Compose([TRANSFORMS.build(copy.deepcopy(step)) for step in steps])
        if checkpoint is not None:
            self.model.load_state_dict(
                load_state(checkpoint).state, strict=False
            )  # the backbone needs all of its own
        self.model.to(choose_device(device))
        self.names = [names[0] for names in self.model.classes]

    @torch.no_grad()
    def __call__(self, image: str | Path) -> Segmentation:
        """Segment one image file.

        Raises:
            MissingFileError: there is no such file.
            UserError: it is no image.
        """
        if not Path(image).is_file():
            raise MissingFileError(f'no image at {image}')
        try:
            pixels = read_image(image)
            packed = self.pipeline({'img_path': str(image)})
        except BadDataError as error:
            raise UserError(f'{image} cannot be read as an image: {error}') from error
        batch = {'inputs': [packed['inputs']], 'data_samples': [packed['data_samples']]}
        (sample,) = self.model.test_step(batch)
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        return Segmentation(np.ascontiguousarray(pixels[..., ::-1]), labels, self.names)


def _refuse_random(settings: Any, checkpoint: str | Path | None, allowed: bool) -> None:
    """Refuse random weights: their pictures look like those of trained weights."""
    backbone = settings.get('backbone') or {}
    if allowed:
        return
    if settings.get('text_weights') in (None, 'random'):
        raise UserError(
            f'the text tower {settings.get("text_model")} has random weights: every label would be chance. Name '
            'trained ones in the config (model.text_weights), or allow it with --allow-random (allow_random=True)'
        )
    if (
        checkpoint is None
        and backbone.get('checkpoint') in (None, 'random')
        and not backbone.get('pretrained')
    ):
        raise UserError(
            'the backbone has random weights: give --checkpoint, or allow it with --allow-random (allow_random=True)'
        )
