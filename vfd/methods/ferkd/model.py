"""FKD and FerKD: a student learns stored labels of image regions; no teacher is in memory.

Papers: "A Fast Knowledge Distillation Framework for Visual Recognition", ECCV 2022, arXiv 2112.01528, and "FerKD:
Surgical Label Adaptation for Efficient Distillation", ICCV 2023, arXiv 2312.17473. FerKD is FKD with calibrated labels
(``StoredCropDataset(calibration=...)``, or a calibrated store) and SelfMix. In a config::

    model = dict(
        type='vfd.FerKD',
        student=dict(type='mmpretrain.TimmClassifier', model_name='resnet50', num_classes=1000),
        selfmix=dict(kind='cutmix'))
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vfd.errors import UserError, did_you_mean
from vfd.losses import SoftLabels, soft_cross_entropy, sparse_labels
from vfd.methods.base import Method
from vfd.registry import MODELS
from vfd.students import forward_taps

from .mixing import MixupCutmix, SelfMix
from .stored_crops import crop_major_labels


@MODELS.register_module()
class FerKD(Method):
    """Trains ``student`` on batches of :func:`vfd.methods.ferkd.crop_major_collate`.

    Args:
        student: config of a classifier whose ``tensor`` mode gives logits (mmpretrain's ``TimmClassifier`` and
            ``ImageClassifier``, ``vfd.ViTClassifier``).
        temperature: divides the student's logits; 1 as published.
        mixup_cutmix: settings of :class:`~vfd.methods.ferkd.mixing.MixupCutmix` over the whole batch (FKD's option);
            ``dict()`` takes the published ones, None does not mix.
        selfmix: settings of :class:`~vfd.methods.ferkd.mixing.SelfMix` (FerKD); ``dict()`` takes the defaults. Not
            together with ``mixup_cutmix``.
        data_preprocessor: config; makes the batches.
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: settings that contradict each other or are out of range.
    """

    def __init__(
        self,
        student: dict,
        temperature: float = 1.0,
        mixup_cutmix: dict | None = None,
        selfmix: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(student, data_preprocessor, init_cfg)
        if temperature <= 0:
            raise UserError(f'FerKD: temperature={temperature} must be positive')
        if mixup_cutmix is not None and selfmix is not None:
            raise UserError('FerKD: mixup_cutmix and selfmix are both set; choose one')
        self.temperature = temperature
        self.mixing: MixupCutmix | SelfMix | None = None
        if mixup_cutmix is not None:
            self.mixing = _settings(MixupCutmix, mixup_cutmix, 'mixup_cutmix')
        if selfmix is not None:
            self.mixing = _settings(SelfMix, selfmix, 'selfmix')

    def loss(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Compute the soft cross-entropy with the stored labels of one batch.

        Args:
            inputs: (K * B, 3, H, W): K crops of B images, crop-major.
            data_samples: B samples of :class:`~vfd.methods.ferkd.StoredCropDataset`.

        Returns:
            ``loss_soft``: a scalar.
        """
        labels, classes, crops = self._labels(inputs, data_samples)
        if self.mixing is not None:
            height, width = inputs.shape[-2:]
            mix = self.mixing.draw(len(inputs), crops, (height, width), np.random)
            if mix is not None:
                inputs, labels = mix.images(inputs), mix.labels(labels)
        logits = forward_taps(self.student, inputs, ['logits'])['logits']  # (K * B, C)
        if logits.shape[1] != classes:
            raise UserError(
                f"the student has {logits.shape[1]} classes, the stored labels have {classes}: set the student's "
                f'num_classes={classes}, or take the store of the right data set'
            )
        return {'loss_soft': soft_cross_entropy(logits, labels, self.temperature)}

    @staticmethod
    def _labels(inputs: Tensor, samples: list | None) -> tuple[SoftLabels, int, int]:
        """Return labels of all rows, classes C, crops K of an image."""
        if not samples or 'stored_label' not in samples[0]:
            raise UserError(
                'FerKD: the batch has no stored labels. Train from a vfd.StoredCropDataset with '
                "collate_fn=dict(type='vfd.crop_major_collate')"
            )
        stored = crop_major_labels(samples)
        if inputs.ndim != 4 or len(inputs) != len(stored):
            raise UserError(
                f'FerKD: {len(stored)} labels for images of shape {tuple(inputs.shape)}; the data loader needs '
                "collate_fn=dict(type='vfd.crop_major_collate')"
            )
        classes = samples[0].num_classes
        labels = sparse_labels(stored, samples[0].label_type, classes)
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        return labels.to(inputs.device, dtype), classes, len(stored) // len(samples)


def _settings(kind: type, given: dict, name: str) -> Any:
    known = sorted(field.name for field in dataclasses.fields(kind))
    for key in given:
        if key not in known:
            raise UserError(
                f'FerKD: {name} has no setting "{key}"{did_you_mean(key, known)}; it has {", ".join(known)}'
            )
    return kind(**given)
