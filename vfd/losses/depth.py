"""Losses of depth maps on a logarithmic scale, as linear depth probes train with them.

The scale-invariant loss is that of Eigen et al., "Depth Map Prediction from a Single Image using a Multi-Scale Deep
Network", 2014, arXiv 1406.2283, in the form and with the warm-up of BTS; the gradient term compares neighbours of the
logarithmic error, as MegaDepth does. Depths are in metres; a target outside ``(0, max_depth]`` is a pixel
without depth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_EPS = 1e-3
_MEAN_SHARE = 0.15
_STRIDES = (1, 2, 4, 6)


def valid_depth(target: Tensor, max_depth: float) -> Tensor:
    """Return where a target has a depth: ``0 < target <= max_depth``, never where it is NaN."""
    return (target > 0) & (target <= max_depth)


def sig_loss(pred: Tensor, target: Tensor, max_depth: float = 10.0, warm_up: bool = False) -> Tensor:
    """Compute ``sqrt(var(g) + 0.15 mean(g)²)`` of the logarithmic errors ``g`` of all pixels that have a depth.

    The variance is the unbiased one.

    Args:
        pred: depths in metres, of any shape, above 0.
        target: of the same shape.
        max_depth: in metres.
        warm_up: take the mean alone, ``sqrt(0.15) |mean(g)|``, which first brings the scale right.

    Returns:
        A scalar; 0, with a gradient of 0, where no pixel has a depth [ours].
    """
    valid = valid_depth(target, max_depth)
    count = int(valid.sum())
    if count == 0:
        return (pred * 0).sum()
    error = torch.log(pred[valid] + _EPS) - torch.log(target[valid] + _EPS)
    mean = error.mean()
    if warm_up or count == 1:  # one pixel has no variance
        return math.sqrt(_MEAN_SHARE) * mean.abs()
    return (error.var() + _MEAN_SHARE * mean.square()).sqrt()


def gradient_loss(pred: Tensor, target: Tensor, max_depth: float = 10.0) -> Tensor:
    """Compute how much the logarithmic error changes over two pixels, down and to the right, on four grids.

    The grids take every pixel, every 2nd, every 4th and every 6th. On each, the sum over all pairs whose two pixels
    have a depth is divided by the number of pixels that have one.

    Args:
        pred: (H, W, ...) depths in metres, above 0; the first two axes are compared.
        target: of the same shape.
        max_depth: in metres.

    Returns:
        A scalar; a grid without a valid pixel adds 0 [ours].
    """
    total = pred.new_zeros(())
    for stride in _STRIDES:
        pred_grid, target_grid = pred[::stride, ::stride], target[::stride, ::stride]
        valid = valid_depth(target_grid, max_depth)
        error = torch.log(pred_grid + _EPS) - torch.log(torch.where(valid, target_grid, 1.0) + _EPS)
        down = (error[:-2] - error[2:]).abs()[valid[:-2] & valid[2:]]
        right = (error[:, :-2] - error[:, 2:]).abs()[valid[:, :-2] & valid[:, 2:]]
        total = total + (down.sum() + right.sum()) / valid.sum().clamp(min=1)
    return total


class SigLoss(nn.Module):
    """`sig_loss` with a warm-up that counts the training steps.

    Args:
        max_depth: in metres.
        warm_up_iters: steps that take the mean alone.
        loss_weight: factor of the loss.
    """

    calls: Tensor

    def __init__(self, max_depth: float = 10.0, warm_up_iters: int = 100, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.max_depth, self.warm_up_iters, self.loss_weight = max_depth, warm_up_iters, loss_weight
        self.register_buffer('calls', torch.zeros((), dtype=torch.long))  # saved, so that resuming is exact

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of one batch: (B, 1, H, W) each, in metres."""
        warm_up = self.training and int(self.calls) < self.warm_up_iters
        if self.training:
            self.calls += 1
        return self.loss_weight * sig_loss(pred, target, self.max_depth, warm_up)


class GradientLoss(nn.Module):
    """`gradient_loss` of a batch.

    Args:
        max_depth: in metres.
        loss_weight: factor of the loss.
        legacy_bchw: compare the first two axes of the (B, 1, H, W) tensors, that is images and channels, as the
            released code does. With the published two images a process this is 0: the published depth probes were
            trained without this term. Off, each image is compared along its rows and columns, and the mean over the
            images is taken [ours].
    """

    def __init__(self, max_depth: float = 10.0, loss_weight: float = 0.5, legacy_bchw: bool = False) -> None:
        super().__init__()
        self.max_depth, self.loss_weight, self.legacy_bchw = max_depth, loss_weight, legacy_bchw

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of one batch: (B, 1, H, W) each, in metres."""
        if self.legacy_bchw:
            return self.loss_weight * gradient_loss(pred, target, self.max_depth)
        each = [
            gradient_loss(pred_grid, target_grid, self.max_depth)
            for pred_grid, target_grid in zip(pred[:, 0], target[:, 0], strict=True)
        ]
        return self.loss_weight * torch.stack(each).mean()
