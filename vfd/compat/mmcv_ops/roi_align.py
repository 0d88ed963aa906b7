"""RoIAlign with average pooling (He et al., 2017), on torchvision's kernels."""

from __future__ import annotations

import torch
import torchvision  # noqa: F401  (its import registers torch.ops.torchvision)
from torch import Tensor

from vfd.compat.mmcv_ops.precision import computable

POOL_AVERAGE = 1  # mmcv's code of the pooling mode; 0 is the maximum


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool each region of interest into a grid.

    Args:
        input: (N, C, H, W) features.
        rois: (K, 5): index into N, then x1, y1, x2, y2 in pixels of the image.
        output: (K, C, aligned_height, aligned_width), filled in place.
        argmax_y: Of the maximum mode; unused.
        argmax_x: Of the maximum mode; unused.
        aligned_height: Height of the grid.
        aligned_width: Width of the grid.
        spatial_scale: Pixels of ``input`` per pixel of the image.
        sampling_ratio: Samples per cell and axis; 0 adapts to the size of the region.
        pool_mode: 1, average.
        aligned: Shift by half a pixel, so that pixel centres lie at integers plus one half.

    Raises:
        NotImplementedError: Maximum mode is requested.
    """
    if pool_mode != POOL_AVERAGE:
        raise NotImplementedError(
            'RoIAlign with pool_mode="max" has no stand-in in vfd: it needs mmcv with compiled operators '
            '(docs/install/gpu-and-compiled-mmcv.md); pool_mode="avg" works.'
        )
    features = computable(input)
    output.copy_(
        torch.ops.torchvision.roi_align(
            features,
            rois.to(features.dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Compute the gradient with respect to the features; arguments as in :func:`roi_align_forward`.

    Args:
        grad_output: (K, C, aligned_height, aligned_width).
        rois: (K, 5).
        argmax_y: Unused.
        argmax_x: Unused.
        grad_input: (N, C, H, W), filled in place.
        aligned_height: Height of the grid.
        aligned_width: Width of the grid.
        spatial_scale: Pixels of the features per pixel of the image.
        sampling_ratio: Samples per cell and axis.
        pool_mode: 1, average.
        aligned: Shift by half a pixel.
    """
    gradient = computable(grad_output)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            gradient,
            rois.to(gradient.dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )
