"""Distillation of a detector where its teacher detects something: feature maps and objectness, weighted by richness.

Source: "Generic-to-Specific Distillation of Masked Autoencoders", arXiv 2302.14771, the detection loss of the released
code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeatureRichnessLoss(nn.Module):
    """Both terms, weighted and warmed up.

    Args:
        feature_weight: of the feature term.
        objectness_weight: of the objectness term.
        warmup_iters: iterations over which both weights rise linearly from 0; 0 starts with the full weights.
    """

    def __init__(
        self, feature_weight: float = 0.001, objectness_weight: float = 0.1, warmup_iters: int = 500
    ) -> None:
        super().__init__()
        self.feature_weight = feature_weight
        self.objectness_weight = objectness_weight
        self.warmup_iters = warmup_iters

    def forward(
        self,
        features: Sequence[Tensor],
        target_features: Sequence[Tensor],
        logits: Sequence[Tensor],
        target_logits: Sequence[Tensor],
        iteration: int,
    ) -> tuple[Tensor, Tensor]:
        """Compare one batch. The arguments hold one tensor a level.

        Args:
            features: (B, C, H, W), the student's maps, adapted to the teacher's width.
            target_features: (B, C, H, W), the teacher's maps.
            logits: (B, A, H, W), the student's objectness logits of A anchors.
            target_logits: (B, A, H, W), the teacher's.
            iteration: finished training iterations.

        Returns:
            The feature term and the objectness term, scalars.
        """
        # Under autocast, sums of squares overflow in half precision and a loss on probabilities is refused.
        with torch.autocast(target_logits[0].device.type, enabled=False):
            maps = [map_.to(target) for map_, target in zip(features, target_features, strict=True)]
            scores = [score.to(target) for score, target in zip(logits, target_logits, strict=True)]
            masks = [richness(target) for target in target_logits]
            feature = torch.stack(list(map(feature_term, maps, target_features, masks))).sum()
            objectness = torch.stack(list(map(objectness_term, scores, target_logits, masks))).sum()
        factor = min(1.0, iteration / self.warmup_iters) if self.warmup_iters else 1.0
        return factor * self.feature_weight * feature, factor * self.objectness_weight * objectness


def richness(target_logits: Tensor) -> Tensor:
    """Compute the feature richness of every place: the score of the teacher's best anchor.

    Args:
        target_logits: (B, A, H, W), objectness logits.

    Returns:
        (B, H, W) in [0, 1], without gradient.
    """
    return target_logits.detach().amax(dim=1).sigmoid()


def feature_term(features: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Compute the squared distance summed over everything, channels too, divided by the sum of the mask alone.

    Args:
        features: (B, C, H, W).
        target: (B, C, H, W).
        mask: (B, H, W), see `richness`. The whole batch shares one divisor.
    """
    distance = (target.detach() - features).square().sum(dim=1)  # (B, H, W)
    return (mask * distance).sum() / _total(mask)


def objectness_term(logits: Tensor, target_logits: Tensor, mask: Tensor) -> Tensor:
    """Compute the cross-entropy to the teacher's probabilities, summed and divided by the sum of the mask.

    As published it works on probabilities, with logarithms cut off at -100; torch's own function also has a finite
    gradient where the student is saturated.

    Args:
        logits: (B, A, H, W).
        target_logits: (B, A, H, W).
        mask: (B, H, W).
    """
    target = target_logits.detach().sigmoid()
    entropy = F.binary_cross_entropy(logits.sigmoid(), target, reduction='none').sum(dim=1)  # (B, H, W)
    return (mask * entropy).sum() / _total(mask)


def _total(mask: Tensor) -> Tensor:
    """Return the divisor; a mask that underflowed everywhere gives a loss of zero and not of 0/0."""
    return mask.sum().clamp_min(torch.finfo(mask.dtype).tiny)
