"""PH-Reg as plain tensors: the two distances between a student's patches and the denoised ones."""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-8  # added to norms, as the released code does, not a lower bound


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute one minus the mean cosine between tokens (released code).

    Args:
        student: (B, T, D).
        teacher: the same shape; gets no gradient.

    Returns:
        A scalar, computed in at least float32.
    """
    student, teacher = _in_float(student, teacher)
    units = [side / (side.norm(dim=-1, keepdim=True) + _EPSILON) for side in (student, teacher)]
    return 1 - (units[0] * units[1]).sum(dim=-1).mean()


def squared_loss(student: Tensor, teacher: Tensor, scale: float = 1.0) -> Tensor:
    """Compute ``scale`` times the mean squared difference over images, tokens and channels, as `cosine_loss`."""
    student, teacher = _in_float(student, teacher)
    return scale * (teacher - student).square().mean()


def _in_float(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(student.dtype, torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)
