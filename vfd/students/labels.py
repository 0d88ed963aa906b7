"""Labels of a batch of mmpretrain's samples, and a classifier's own loss with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vfd.errors import UserError


def labels_of(method: str, data_samples: list | None) -> Tensor:
    """Return the classes (B,) of a batch, or the scores (B, C) of mixed images.

    Args:
        method: name for the message.
        data_samples: B samples with ``gt_label`` or ``gt_score``.

    Raises:
        UserError: there are no labels.
    """
    if not data_samples or not ('gt_score' in data_samples[0] or 'gt_label' in data_samples[0]):
        raise UserError(
            f'{method} learns from labels, and the batch has none: take a data set with labels, such as '
            'mmpretrain.CustomDataset'
        )
    if 'gt_score' in data_samples[0]:
        return torch.stack([sample.gt_score for sample in data_samples])
    return torch.cat([sample.gt_label for sample in data_samples])


def classifier_loss(student: nn.Module, logits: Tensor, data_samples: list | None) -> Tensor:
    """Compute the loss with labels that a classifier's config names, from its logits.

    Args:
        student: mmpretrain's ``ImageClassifier`` or ``TimmClassifier``.
        logits: (B, C), of the student.
        data_samples: B samples with labels.

    Returns:
        A scalar.
    """
    head: Any = getattr(student, 'head', student)
    return head._get_loss(logits, data_samples)['loss']
