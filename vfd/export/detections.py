"""What a detector of mmdet answers, as plain tensors.

B images, N objects in all of them, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vfd.errors import UserError

NAMES = ('counts', 'boxes', 'scores', 'labels', 'masks')
MEANING = (
    'boxes (N, 4) as x1, y1, x2, y2 in pixels of the input, scores (N,), labels (N,) and, of a detector with masks, '
    'masks (N, H, W)'
)


def is_detector(model: nn.Module) -> bool:
    """Whether a model is one of mmdet, told without importing mmdet."""
    return any(
        kind.__name__ == 'BaseDetector' and kind.__module__.startswith('mmdet.')
        for kind in type(model).__mro__
    )


def is_segmentor(model: nn.Module) -> bool:
    """Whether a model is one of mmseg, told without importing mmseg."""
    return any(
        kind.__name__ == 'BaseSegmentor' and kind.__module__.startswith('mmseg.')
        for kind in type(model).__mro__
    )


def detect(model: Any, images: Tensor) -> tuple[Tensor, ...]:
    """Detect objects in a normalised batch, in pixels of that batch.

    Args:
        model: a detector of mmdet.
        images: (B, 3, H, W).

    Returns:
        Counts (B,) of objects, then boxes (N, 4), scores (N,), labels (N,) and, where the detector has them, masks
        (N, H, W) of all images one after the other.

    Raises:
        UserError: the detector answers with something other than instances.
    """
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[-2:])
    shape = {'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'batch_input_shape': size}
    samples = [
        DetDataSample(metainfo=shape | {'scale_factor': (1.0, 1.0), 'img_id': k}) for k in range(len(images))
    ]
    with torch.no_grad():
        found = [sample.get('pred_instances') for sample in model.predict(images, samples, rescale=True)]
    if None in found:
        raise UserError(
            f'{type(model).__name__} answers without instances (boxes, scores, labels): export its backbone, --part '
            'backbone'
        )
    return collate([_tensors(instances) for instances in found])


def collate(found: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Counts, then the tensors of all images one after the other."""
    counts = torch.tensor([len(tensors[0]) for tensors in found])
    return (counts, *(torch.cat(tensors) for tensors in zip(*found, strict=True)))


def _tensors(instances: Any) -> list[Tensor]:
    own = [instances.bboxes, instances.scores, instances.labels]
    if 'masks' not in instances:
        return own
    masks = instances.masks
    return [*own, masks if isinstance(masks, Tensor) else torch.from_numpy(masks.masks).bool()]
