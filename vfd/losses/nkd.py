"""Normalised knowledge distillation: the target class by itself, the other classes among themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vfd.errors import UserError


class NKDLoss(nn.Module):
    r"""NKD (arXiv 2303.13005), as the G2SD code offers it for classification.

    With student and teacher softmax :math:`y` and :math:`t`, label :math:`g`, and :math:`\hat y, \hat t` the softmax
    at temperature :math:`\tau` over all classes but :math:`g`:

    .. math::
        -\frac1B\sum_b t_g \log y_g - \alpha\tau^2 \frac1B\sum_b\sum_{c\ne g} \hat t_c \log \hat y_c

    No gradient reaches the teacher.

    Args:
        temperature: :math:`\tau`, of the second term.
        alpha: weight of the second term.

    Raises:
        UserError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 1.0, alpha: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise UserError(f'NKDLoss: temperature={temperature} must be positive.')
        self.temperature = temperature
        self.alpha = alpha

    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            student: logits, (B, C) with C >= 2.
            teacher: logits, (B, C).
            label: classes, (B,), or scores (B, C) whose largest entry is taken (mixed images).

        Returns:
            Scalar, mean over the batch.
        """
        assert student.ndim == 2 and student.shape == teacher.shape and student.shape[1] >= 2, student.shape
        student = student.to(torch.promote_types(student.dtype, torch.float32))
        teacher = teacher.detach().to(student.dtype)
        label = label.argmax(1, keepdim=True) if label.ndim == 2 else label[:, None]  # (B, 1)
        weight = teacher.softmax(1).gather(1, label)
        target = -(weight * student.log_softmax(1).gather(1, label)).mean()

        # Logits of -inf take the label out of the softmax; its log is then replaced, for 0 * -inf is no number.
        minus_inf = -float('inf')
        others_t = (teacher.scatter(1, label, minus_inf) / self.temperature).softmax(1)
        others_s = (student.scatter(1, label, minus_inf) / self.temperature).log_softmax(1)
        others = -(others_t * others_s.scatter(1, label, 0.0)).sum(1).mean()
        return target + self.alpha * self.temperature**2 * others
