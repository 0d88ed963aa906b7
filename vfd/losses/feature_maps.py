"""Distillation losses on feature maps: attention, kernels of channels, channel correlation, singular vectors.

B images, C channels, maps of H x W positions; student first, then teacher, which gets no gradient. Sources: AT (arXiv
1612.03928), NST (arXiv 1707.01219), ICKD (arXiv 2202.03680), KDSVD (arXiv 1807.06819); in the form and with the
constants of the RepDistiller benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfd.errors import UserError


def attention_transfer(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Compute AT: mean squared difference of unit-length maps of mean squared activations, summed over the pairs."""
    terms = [
        (_attention(student_map) - _attention(teacher_map)).square().mean()
        for student_map, teacher_map in _same_size(students, teachers)
    ]
    return torch.stack(terms).sum()


def _attention(features: Tensor) -> Tensor:
    return F.normalize(features.square().mean(1).flatten(1))


def neuron_selectivity(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Compute NST: squared MMD of unit-length channels under the kernel ``(a . b)^2``, summed over the pairs."""
    terms = []
    for student_map, teacher_map in _same_size(students, teachers):
        s, t = (F.normalize(features.flatten(2), dim=2) for features in (student_map, teacher_map))
        kernels = [(a @ b.transpose(1, 2)).square().mean() for a, b in ((t, t), (s, s), (s, t))]
        terms.append(kernels[0] + kernels[1] - 2 * kernels[2])
    return torch.stack(terms).sum()


def channel_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute ICKD, and DisWOT's distance of channel correlations: ``sum_b ||A_t - A_s||_F^2 / (C B)``.

    A is the Gram matrix of an image's channels, (C, C), each row divided by max(length, 1e-12).

    Args:
        student: (B, C, H, W) or (B, C, N).
        teacher: (B, C, ...), as many channels; resolutions may differ.

    Raises:
        UserError: other channels.
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise UserError(
            f"channel correlation compares channel by channel: the student's map is {tuple(student.shape)}, the "
            f"teacher's {tuple(teacher.shape)}. Choose maps of equal width, or the relation loss alone."
        )
    student_map, teacher_map = _channel_gram(student), _channel_gram(teacher.detach())
    return (teacher_map - student_map).square().sum() / (student.shape[0] * student.shape[1])


def _channel_gram(features: Tensor) -> Tensor:
    flat = features.flatten(2)
    return F.normalize(flat @ flat.transpose(1, 2), dim=2)


def singular_vectors(students: Sequence[Tensor], teachers: Sequence[Tensor], count: int = 1) -> Tensor:
    """Compute KDSVD: how the leading singular vectors of one map relate to those of the next one.

    Right singular vectors (channels) of every image's (HW, C) matrix; the student's ``count + 3`` leading ones are
    matched to the teacher's by the largest cosine, signs included; both are weighted by the teacher's singular values
    (of length 1). Compared are ``exp(-(v_i - v'_j)^2 / 8)`` of neighbouring maps, summed and divided by B.
    """
    total = students[0].new_zeros(())
    before: tuple[Tensor, Tensor] | None = None
    for student, teacher in zip(students, teachers, strict=True):
        values, teacher_map = _leading_vectors(teacher.detach(), count)
        student_map = _leading_vectors(student, count + 3)[1]
        cosine = student_map.transpose(1, 2) @ teacher_map  # (B, count + 3, count)
        largest = cosine.abs() == cosine.abs().amax(1, keepdim=True)
        student_map = (
            student_map @ torch.where(largest, cosine.sign(), torch.zeros_like(cosine)) * values[:, None]
        )
        teacher_map = teacher_map * values[:, None]
        if before is not None:
            s, t = (
                torch.exp(-(now[:, :, None] - past[:, None]).square() / 8)
                for now, past in zip((student_map, teacher_map), before, strict=True)
            )
            total = total + (s - t).square().sum() / len(student)
        before = student_map, teacher_map
    return total


def _leading_vectors(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return singular values (B, count) of length 1, and right singular vectors (B, C, count)."""
    _, values, vectors = torch.linalg.svd(features.flatten(2).transpose(1, 2), full_matrices=False)
    return F.normalize(values[:, :count], dim=1), F.normalize(vectors.transpose(1, 2)[..., :count], dim=1)


def _same_size(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of maps; the larger of two is pooled to the smaller one's height and width."""
    pairs = []
    for student_map, teacher_map in zip(students, teachers, strict=True):
        teacher_map = teacher_map.detach()
        height = min(student_map.shape[2], teacher_map.shape[2])
        student_map, teacher_map = (
            maps if maps.shape[2] == height else F.adaptive_avg_pool2d(maps, height)
            for maps in (student_map, teacher_map)
        )
        pairs.append((student_map, teacher_map))
    return pairs


class ChannelCorrelationLoss(nn.Module):
    """:func:`channel_correlation` as a module, in float32 at least.

    Args:
        loss_weight: factor of the result. DisWOT's weight is not published.
    """

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare (B, C, H, W) with (B, C, H', W'). A scalar."""
        with torch.autocast(student.device.type, enabled=False):
            dtype = torch.promote_types(student.dtype, torch.float32)
            return self.loss_weight * channel_correlation(student.to(dtype), teacher.to(dtype))
