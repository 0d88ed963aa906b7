"""Nine measures of predicted depth, and a metric that averages them over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from vfd.errors import UserError
from vfd.registry import METRICS

NAMES = ('a1', 'a2', 'a3', 'abs_rel', 'rmse', 'log_10', 'rmse_log', 'silog', 'sq_rel')
# Rows and columns of a 480 x 640 image that Eigen et al. evaluate on NYUv2: the sensor has no depth at the border.
NYU_CROP = (slice(45, 471), slice(41, 601))


def depth_metrics(
    pred: Tensor, target: Tensor, min_depth: float = 1e-3, max_depth: float = 10.0
) -> dict[str, float]:
    """Compare one predicted depth map with the measured one.

    Args:
        pred: depths in metres, of any shape, above 0.
        target: of the same shape; pixels outside ``(min_depth, max_depth)`` do not count.
        min_depth: in metres.
        max_depth: in metres.

    Returns:
        ``a1``, ``a2``, ``a3``: shares of pixels whose ratio to the truth, whichever is larger, is below 1.25, 1.25²,
        1.25³. ``abs_rel``, ``sq_rel``: mean of ``|d| / target`` and ``d² / target``. ``rmse`` in metres; ``rmse_log``
        of natural logarithms; ``log_10``: mean absolute difference of decimal logarithms; ``silog``: 100 times the
        standard deviation of the logarithmic error. All NaN where no pixel counts.
    """
    valid = (target > min_depth) & (target < max_depth)
    if not valid.any():
        return dict.fromkeys(NAMES, float('nan'))
    pred, target = pred[valid], target[valid]
    ratio = torch.maximum(target / pred, pred / target)
    difference = pred - target
    log_error = torch.log(pred) - torch.log(target)
    values = (
        *((ratio < 1.25**power).to(pred.dtype).mean() for power in (1, 2, 3)),
        (difference.abs() / target).mean(),
        difference.square().mean().sqrt(),
        (torch.log10(pred) - torch.log10(target)).abs().mean(),
        log_error.square().mean().sqrt(),
        100 * log_error.std(correction=0),
        (difference.square() / target).mean(),
    )
    return {name: float(value) for name, value in zip(NAMES, values, strict=True)}


@METRICS.register_module()
class DepthMetric(BaseMetric):
    """`depth_metrics` of every image, averaged over the images that have a depth.

    Args:
        min_depth: in metres.
        max_depth: in metres.
        crop: ``'nyu'`` compares the part of a 480 x 640 image that NYUv2 is evaluated on (rows 45 to 470, columns 41
            to 600); None the whole image.
        collect_device: where results of several processes are collected.
        prefix: in front of the names.

    Raises:
        UserError: ``crop`` is unknown, or an image has another size, or a predicted depth is not finite.
    """

    default_prefix = 'depth'

    def __init__(
        self,
        min_depth: float = 1e-3,
        max_depth: float = 10.0,
        crop: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if crop not in (None, 'nyu'):
            raise UserError(f'DepthMetric crop="{crop}": use "nyu" or None')
        self.min_depth, self.max_depth, self.crop = min_depth, max_depth, crop

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Measure a batch: samples with ``pred_depth_map`` and ``gt_depth_map`` of the same shape."""
        for sample in data_samples:
            pred, target = (sample[key]['data'].squeeze(0) for key in ('pred_depth_map', 'gt_depth_map'))
            if self.crop == 'nyu':
                if target.shape != (480, 640):
                    raise UserError(
                        f'DepthMetric crop="nyu" is for images of 480 x 640, {sample.get("img_path")} has '
                        f'{target.shape[0]} x {target.shape[1]}; set crop=None'
                    )
                pred, target = pred[NYU_CROP], target[NYU_CROP]
            if not pred.isfinite().all():
                raise UserError(f'the depth predicted for {sample.get("img_path")} is not finite')
            self.results.append(depth_metrics(pred.float(), target.float(), self.min_depth, self.max_depth))

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """Return the means over images.

        Raises:
            UserError: no image has a valid depth.
        """
        values = np.array([[result[name] for name in NAMES] for result in results])
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            raise UserError(
                f'none of {len(results)} images has a depth between {self.min_depth} and {self.max_depth} m: is the '
                'scale of the depth files right?'
            )
        return {name: float(value) for name, value in zip(NAMES, values.mean(axis=0), strict=True)}
