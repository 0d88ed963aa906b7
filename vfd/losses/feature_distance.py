"""Distance between two feature maps: the extra term of mutual learning (UDML), not of SSLD proper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfd.errors import UserError, did_you_mean

_DISTANCES = {
    'l2': F.mse_loss,
    'l1': F.l1_loss,
    'smooth_l1': F.smooth_l1_loss,  # delta 1
}
_ACTIVATIONS = {
    'softmax': lambda features: torch.softmax(features, dim=-1),
    'sigmoid': torch.sigmoid,
}


def feature_distance(student: Tensor, teacher: Tensor, mode: str = 'l2', act: str | None = None) -> Tensor:
    """Compute the mean distance of two feature maps of equal shape.

    Args:
        student: any shape.
        teacher: the same shape; it gets no gradient.
        mode: ``l2`` (mean squared error), ``l1`` or ``smooth_l1`` (quadratic below 1).
        act: ``softmax`` (over the last axis) or ``sigmoid``, applied to both before they are compared.

    Returns:
        A scalar, float32 at least.
    """
    if student.shape != teacher.shape:
        raise UserError(
            f"feature distance: the student's map is {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}. "
            'Choose taps whose maps have one shape (this loss has no adapter).'
        )
    dtype = torch.promote_types(student.dtype, torch.float32)
    student, teacher = student.to(dtype), teacher.detach().to(dtype)
    if act is not None:
        student, teacher = _ACTIVATIONS[act](student), _ACTIVATIONS[act](teacher)
    return _DISTANCES[mode](student, teacher)


class FeatureDistanceLoss(nn.Module):
    """:func:`feature_distance` as a module.

    Args:
        mode: ``l2``, ``l1`` or ``smooth_l1``.
        act: None, ``softmax`` or ``sigmoid``.
        loss_weight: factor of the result.

    Raises:
        UserError: for another mode or activation.
    """

    def __init__(self, mode: str = 'l2', act: str | None = None, loss_weight: float = 1.0) -> None:
        super().__init__()
        if mode not in _DISTANCES:
            hint = did_you_mean(mode, _DISTANCES)
            raise UserError(f'FeatureDistanceLoss: mode={mode!r} is not one of {list(_DISTANCES)}{hint}')
        if act is not None and act not in _ACTIVATIONS:
            raise UserError(f'FeatureDistanceLoss: act={act!r} is not one of {[None, *_ACTIVATIONS]}')
        self.mode, self.act, self.loss_weight = mode, act, loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the scalar distance of two maps of equal shape."""
        return self.loss_weight * feature_distance(student, teacher, self.mode, self.act)
