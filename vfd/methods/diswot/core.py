"""DisWOT as plain tensors: how far an untrained student is from an untrained teacher, without a backward pass.

B images, K classes, C channels of the last map. Everything is meant to be called in float64: the rows that matter
least are gradients of 1e-15, and their products vanish in float32.

    M_s   distance of the channels' correlations in the classifier's gradient (semantic)
    M_r   distance of the samples' correlations in the last map (relation): vfd.losses.sample_relations
    score = -(M_s + M_r), larger is better (arXiv 2303.15678, section 3)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vfd.errors import UserError
from vfd.losses.sample_relations import sample_gram

EPS = 1e-12  # rows shorter than this fade out instead of being normalised


def classifier_gradient(logits: Tensor, pooled: Tensor, labels: Tensor) -> Tensor:
    """Compute dL/dW of a linear classifier under the mean cross-entropy: ``(softmax(z) - onehot)^T q / B``.

    Args:
        logits: (B, K), z = W q + b.
        pooled: (B, C), q.
        labels: (B,), long.

    Returns:
        (K, C).

    Raises:
        UserError: a label is no class of the network.
    """
    check_labels(labels, logits.shape[1])
    error = logits.softmax(1)
    error[torch.arange(len(labels), device=labels.device), labels] -= 1
    return error.T @ pooled / len(logits)


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise for labels that are no class."""
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise UserError(
            f'labels from {int(labels.min())} to {int(labels.max())}, but the network has {num_classes} classes '
            f'(0 to {num_classes - 1}; -1 stands for images without a label). Build it with as many classes as the '
            'data has, or score with "relation", which needs no labels.'
        )


def semantic_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute M_s: ``sum_k ||A^T_k - A^S_k||_F^2 / (C K)``, A_k = g_k g_k^T, every row over max(length, 1e-12).

    Row i of A_k is ``a_i g_k / |g_k|`` with ``a_i = sign(g_i) min(1, |g_i| |g_k| / 1e-12)``, so the matrices are never
    made: K C operations and not K C^2.

    Args:
        student: (K, C), gradient of its classifier.
        teacher: (K, C).

    Returns:
        A scalar.

    Raises:
        UserError: other classes or another width.
    """
    if student.shape != teacher.shape:
        raise UserError(
            f'the semantic metric needs equal classes and last widths: the student has {student.shape[0]} classes '
            f'and {student.shape[1]} channels, the teacher {teacher.shape[0]} and {teacher.shape[1]}. '
            'Score with "relation", which compares samples and has no such condition.'
        )
    (a_s, unit_s), (a_t, unit_t) = _row_scales(student), _row_scales(teacher)
    cosine = (unit_s * unit_t).sum(1)
    own = a_s.square().sum(1) + a_t.square().sum(1)
    return (own - 2 * cosine * (a_s * a_t).sum(1)).sum() / student.numel()


def _row_scales(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the factors a (K, C) and the directions g_k / |g_k| (K, C); zeros where g_k is zero."""
    length = gradient.norm(dim=1, keepdim=True)
    # The factor 1 / length first: a product of two tiny numbers would underflow.
    scale = gradient.sign() * (gradient.abs() * (length / EPS)).clamp(max=1)
    return scale, gradient / length.clamp(min=torch.finfo(gradient.dtype).tiny)


def score(semantic: Tensor | float, relation: Tensor | float) -> Tensor | float:
    """Compute -(M_s + M_r). At B = 64 the first is some hundred times the second and alone decides the ranking."""
    return -(semantic + relation)


def first_sample_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute M_r as the released scripts do where a tensor is passed instead of a list: of sample 0 alone.

    The loss then iterates over the samples, and its first round takes the channels of sample 0 for a batch:
    ``||G_T - G_S||_F^2 / C^2`` with the row-normalised Gram matrices of C channels.

    Args:
        student: (B, C, H, W) maps (``first_sample_map``) or (B, C) pooled vectors (``first_sample_pooled``).
        teacher: the same.
    """
    student_rows, teacher_rows = (
        features[0].reshape(features.shape[1], -1) for features in (student, teacher)
    )
    if len(student_rows) != len(teacher_rows):
        raise UserError(
            f'this quirk of the released scripts compares channels: {len(student_rows)} of the student, '
            f'{len(teacher_rows)} of the teacher'
        )
    return (sample_gram(teacher_rows) - sample_gram(student_rows)).square().sum() / len(student_rows) ** 2


def accumulated_semantic_distance(student: Tensor, teacher_gradients: Sequence[Tensor]) -> Tensor:
    """Compute M_s as the released benchmark script does: the teacher's gradients are never cleared.

    Args:
        student: (K, C).
        teacher_gradients: those of all candidates so far, each (K, C).
    """
    return semantic_distance(student, torch.stack(list(teacher_gradients)).sum(0))
