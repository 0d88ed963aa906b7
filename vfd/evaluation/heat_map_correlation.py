"""Correlation of the heat maps of class names with the objects: a metric beside mmseg's ``IoUMetric``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from vfd.errors import UserError
from vfd.evaluation.artifacts import pearson
from vfd.registry import METRICS


@METRICS.register_module()
class HeatMapCorrelation(BaseMetric):
    """Pearson's correlation of a class's scores with its mask, averaged over the classes of an image, then over images.

    The query is the class's text; the heat map its largest cosine over synonyms, as :class:`vfd.ZeroShotSegmentor`
    gives it (the cosine and the scaled score have the same correlation). Classes that fill an image, or are not in it,
    do not count [ours].

    Args:
        ignore_index: label of pixels that do not count.
        collect_device: where results of several processes are collected.
        prefix: in front of the name.
    """

    default_prefix = 'heat'

    def __init__(
        self, ignore_index: int = 255, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Measure a batch: samples with ``seg_logits`` (C, H, W) and ``gt_sem_seg`` (1, H, W)."""
        for sample in data_samples:
            scores, labels = sample['seg_logits']['data'], sample['gt_sem_seg']['data'].squeeze(0)
            counted = labels != self.ignore_index
            labels = labels[counted].to(scores.device)
            present = labels.unique()
            if not len(present):
                continue
            heat = torch.stack(
                [scores[i][counted.to(scores.device)] for i in present.tolist()]
            )  # (N, pixels)
            values = pearson(heat[:, None], (labels == present[:, None])[:, None])
            values = values[values.isfinite()]
            if len(values):
                self.results.append(float(values.mean()))

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """Return the mean over images.

        Raises:
            UserError: no image has a class that is neither everywhere nor nowhere.
        """
        if not results:
            raise UserError('HeatMapCorrelation: no image has two classes, nothing can be correlated')
        return {'pearson': sum(results) / len(results)}
