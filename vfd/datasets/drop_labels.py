"""Labelled images among unlabelled ones: their labels are dropped where they are loaded."""

from __future__ import annotations

from mmcv.transforms import BaseTransform

from vfd.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DropLabels(BaseTransform):
    """Remove ``gt_label`` and ``gt_score`` of a sample; comes before ``PackInputs``.

    mmpretrain's preprocessor needs labels on all images of a batch or on none. A label-free method that trains on
    labelled and unlabelled images at once therefore gives this to the labelled ones.
    """

    def transform(self, results: dict) -> dict:
        """Return the sample without its labels."""
        return {key: value for key, value in results.items() if key not in ('gt_label', 'gt_score')}

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
