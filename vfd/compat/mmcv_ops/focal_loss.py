"""Sigmoid focal loss (Lin et al., 2017, equation 5), element by element.

With p = sigmoid(x), for the target class: -alpha (1 - p)^gamma log p; for every other one:
-(1 - alpha) p^gamma log(1 - p). A target outside [0, C), by convention C, is background: no class is its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Compute the loss of every logit.

    Args:
        input: (N, C) logits.
        target: (N,) int64 class indices; C is background.
        weight: (C,) weight of the rows by their class, or empty; background rows weigh 1.
        output: (N, C), filled in place.
        gamma: Focusing exponent.
        alpha: Weight of the target class against the others.
    """
    x = _logits(input)
    p = x.sigmoid()
    own = -alpha * (1 - p) ** gamma * F.logsigmoid(x)
    other = -(1 - alpha) * p**gamma * F.logsigmoid(-x)
    output.copy_(torch.where(_is_own_class(x, target), own, other) * _row_weight(x, target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Compute the derivative of every loss with respect to its own logit.

    Args:
        input: (N, C) logits.
        target: (N,) int64 class indices; C is background.
        weight: (C,) or empty.
        grad_input: (N, C), filled in place.
        gamma: Focusing exponent.
        alpha: Weight of the target class against the others.
    """
    x = _logits(input)
    p = x.sigmoid()
    own = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * F.logsigmoid(x))
    other = -(1 - alpha) * p**gamma * (gamma * (1 - p) * F.logsigmoid(-x) - p)
    grad_input.copy_(torch.where(_is_own_class(x, target), own, other) * _row_weight(x, target, weight))


def _logits(input: Tensor) -> Tensor:
    """Return the logits in a precision in which the powers and logarithms are safe."""
    return input if input.dtype == torch.float64 else input.float()


def _is_own_class(x: Tensor, target: Tensor) -> Tensor:
    """Return the (N, C) mask of the target class of each row; a background row has none."""
    return target[:, None] == torch.arange(x.size(1), device=x.device)


def _row_weight(x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the (N, 1) weight of each row by its class."""
    if not weight.numel():
        return x.new_ones(len(x), 1)
    foreground = (target >= 0) & (target < x.size(1))
    row_weight = weight.to(x.dtype)[target.clamp(0, x.size(1) - 1)]
    return torch.where(foreground, row_weight, 1.0)[:, None]
