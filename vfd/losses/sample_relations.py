"""Distillation losses on pooled features and on how samples of a batch relate to each other.

B samples, D features. Plain functions: student first, then teacher, which gets no gradient. Sources: RKD (arXiv
1904.05068), PKT (arXiv 1803.10837), correlation congruence CC (arXiv 1904.01802), similarity preserving SP (arXiv
1907.09682); in the form and with the constants of the RepDistiller benchmark.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PKT_EPS = 1e-7
DISTANCE_EPS = 1e-12  # under the root of a pairwise distance
RKD_WEIGHTS = (25.0, 50.0)  # of distances and of angles


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute SP: ``||G_t - G_s||_F^2 / B^2`` with row-normalised Gram matrices of the samples.

    In DisWOT (arXiv 2303.15678) this is the relation metric.

    Args:
        student: (B, ...).
        teacher: (B, ...), any other shape behind B.

    Returns:
        A scalar.
    """
    return (sample_gram(teacher.detach()) - sample_gram(student)).square().sum() / len(student) ** 2


def sample_gram(features: Tensor) -> Tensor:
    """Compute (B, B) of (B, ...): inner products of the samples, each row divided by max(length, 1e-12)."""
    flat = features.flatten(1)
    return F.normalize(flat @ flat.T, dim=1)


def rkd(student: Tensor, teacher: Tensor, weights: tuple[float, float] = RKD_WEIGHTS) -> Tensor:
    """Compute RKD: smooth L1 between pairwise distances over their mean, and between the angles of all triples.

    Args:
        student: (B, Ds).
        teacher: (B, Dt).
        weights: of the distance term and of the angle term.
    """
    teacher = teacher.detach()
    distance = F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))
    angle = F.smooth_l1_loss(_angles(student), _angles(teacher))
    return weights[0] * distance + weights[1] * angle


def _relative_distances(features: Tensor) -> Tensor:
    squares = features.square().sum(1)
    squared = squares[:, None] + squares[None] - 2 * features @ features.T
    away = 1 - torch.eye(len(features), dtype=features.dtype, device=features.device)
    distance = squared.clamp(min=DISTANCE_EPS).sqrt() * away
    return distance / distance[distance > 0].mean()


def _angles(features: Tensor) -> Tensor:
    """Compute (B, B, B): cosines of the angle at every sample between every two others."""
    directions = F.normalize(features[None] - features[:, None], dim=2)
    return directions @ directions.transpose(1, 2)


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute PKT: KL of the row-normalised cosine similarities in [0, 1], mean over all pairs; (B, Ds), (B, Dt)."""
    student_rows, teacher_rows = _similarity_rows(student), _similarity_rows(teacher.detach())
    return (teacher_rows * ((teacher_rows + PKT_EPS) / (student_rows + PKT_EPS)).log()).mean()


def _similarity_rows(features: Tensor) -> Tensor:
    unit = features / (features.norm(dim=1, keepdim=True) + PKT_EPS)
    similarity = (unit @ unit.T + 1) / 2
    return similarity / similarity.sum(1, keepdim=True)


def correlation_congruence(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute CC: mean over neighbours in the batch of ``sum_D |d_i| |d_(i+1)|``, d the differences; both (B, D)."""
    difference = (student - teacher.detach()).abs()
    return (difference[:-1] * difference[1:]).sum(1).mean()


class RelationLoss(nn.Module):
    """:func:`similarity_preserving` of two feature maps as a module, in float32 at least.

    Args:
        loss_weight: factor of the result; 3000 is what RepDistiller uses for SP. DisWOT's weight is not published.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare (B, ...) with (B, ...); widths and resolutions may differ. A scalar."""
        with torch.autocast(student.device.type, enabled=False):
            dtype = torch.promote_types(student.dtype, torch.float32)
            return self.loss_weight * similarity_preserving(student.to(dtype), teacher.to(dtype))
