"""Distillation of the relations between tokens, through queries, keys and values.

Present in the released G2SD file (arXiv 2302.14771), which never calls it: no published setting uses it. It extends the
relations of MiniLMv2 (arXiv 2012.15828) from query-query, key-key and value-value to all nine pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vfd.errors import UserError


def qkv_relation(
    student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]], heads: int
) -> Tensor:
    """Compute the KL divergence of token relations, averaged over layers and pairs.

    The relation of a pair (a, b) out of query, key and value is ``softmax(a b^T / sqrt(C / heads))`` along the last
    axis, in each of ``heads`` slices of the channels. Widths may differ, token counts may not.

    Args:
        student: for each layer the three tensors query, key, value: (B, N, Cs) each, before any scaling.
        teacher: the same of the teacher, (B, N, Ct) each; it gets no gradient.
        heads: relation heads A; both widths are divisible by it. They need not be the heads of the networks.

    Returns:
        A scalar: KL(teacher || student), summed over the last axis and averaged over everything else.

    Raises:
        UserError: numbers of layers, tokens or channels that do not fit.
    """
    if len(student) != len(teacher) or not student:
        raise UserError(f'qkv_relation: {len(student)} layers of the student, {len(teacher)} of the teacher')
    total = student[0][0].new_zeros(())
    for student_layer, teacher_layer in zip(student, teacher, strict=True):
        student_parts = [_split(part, heads) for part in student_layer]
        teacher_parts = [_split(part.detach(), heads) for part in teacher_layer]
        for a, a_t in zip(student_parts, teacher_parts, strict=True):
            for b, b_t in zip(student_parts, teacher_parts, strict=True):
                total = total + _divergence(_log_relation(a, b), _log_relation(a_t, b_t))
    return total / (len(student) * len(student[0]) ** 2)


def _split(part: Tensor, heads: int) -> Tensor:
    """Split (B, N, C) into (B, A, N, C / A), in float32 at least: sums of products overflow in half precision."""
    if part.shape[-1] % heads:
        raise UserError(f'qkv_relation: {part.shape[-1]} channels are not divisible by heads={heads}')
    wide = part.to(torch.promote_types(part.dtype, torch.float32))
    return wide.unflatten(-1, (heads, -1)).transpose(1, 2)


def _log_relation(a: Tensor, b: Tensor) -> Tensor:
    """Return the logarithm of the relations, (B, A, N, N)."""
    return (a @ b.transpose(-1, -2) * a.shape[-1] ** -0.5).log_softmax(-1)


def _divergence(student_parts: Tensor, teacher_parts: Tensor) -> Tensor:
    if student_parts.shape != teacher_parts.shape:
        raise UserError(
            f'qkv_relation: relations {tuple(student_parts.shape)} of the student, {tuple(teacher_parts.shape)} of the '
            'teacher. Both need the same tokens: the same patches, without distillation or register tokens.'
        )
    return (teacher_parts.exp() * (teacher_parts - student_parts)).sum(-1).mean()
