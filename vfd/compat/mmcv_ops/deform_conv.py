"""Deformable convolution, version 1 (Dai et al., 2017) and modulated, version 2 (Zhu et al., 2019).

Shapes: input (N, C, H, W), weight (O, C/groups, kH, kW), offset (N, 2*G*kH*kW, H', W') as pairs y, x with G
deformable groups, mask (N, G*kH*kW, H', W'), output (N, O, H', W').

``columns``, ``ones`` and ``im2col_step`` are scratch space and settings of the compiled kernels; unused here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torchvision  # noqa: F401  (its import registers torch.ops.torchvision)
from torch import Tensor

from vfd.compat.mmcv_ops.precision import computable


class Geometry(NamedTuple):
    """Stride, padding, dilation and groups, in the order in which torchvision takes them."""

    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int
    deformable_groups: int


class Gradients(NamedTuple):
    """Gradients of torchvision's backward, in its order."""

    input: Tensor
    weight: Tensor
    offset: Tensor
    mask: Tensor
    bias: Tensor


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Compute version 1: fills ``output``."""
    geometry = Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_forward(input, weight, offset, None, None, geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Compute version 1's gradients: fills ``grad_input`` and ``grad_offset``."""
    geometry = Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    gradients = _backward(grad_output, input, weight, offset, None, geometry)
    grad_input.copy_(gradients.input)
    grad_offset.copy_(gradients.offset)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Compute version 1's weight gradient: adds ``scale`` times the gradient to ``grad_weight``.

    torchvision computes all gradients at once, so version 1 pays for its backward twice. The weight's own
    values do not enter its gradient; a tensor of its shape serves.
    """
    geometry = Geometry(dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    gradients = _backward(grad_output, input, grad_weight, offset, None, geometry)
    grad_weight.add_(gradients.weight.to(grad_weight.dtype), alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Compute version 2: fills ``output``; ``bias`` is empty unless ``with_bias``."""
    geometry = Geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    output.copy_(_forward(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Compute version 2's gradients: fills all ``grad_*`` but ``grad_output``; ``grad_bias`` only ``with_bias``."""
    geometry = Geometry(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    gradients = _backward(grad_output, input, weight, offset, mask, geometry)
    grad_input.copy_(gradients.input)
    grad_weight.copy_(gradients.weight)
    grad_offset.copy_(gradients.offset)
    grad_mask.copy_(gradients.mask)
    if with_bias:
        grad_bias.copy_(gradients.bias)


def _forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: Geometry,
) -> Tensor:
    """Compute the convolution; without ``mask`` version 1."""
    x = computable(input)
    return torch.ops.torchvision.deform_conv2d(
        x,
        computable(weight),
        computable(offset),
        _mask_or_placeholder(x, mask),
        x.new_zeros(len(weight)) if bias is None else computable(bias),
        *geometry,
        mask is not None,
    )


def _backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    geometry: Geometry,
) -> Gradients:
    """Compute all gradients of :func:`_forward`."""
    x = computable(input)
    return Gradients(
        *torch.ops.torchvision._deform_conv2d_backward(
            computable(grad_output),
            x,
            computable(weight),
            computable(offset),
            _mask_or_placeholder(x, mask),
            x.new_zeros(len(weight)),
            *geometry,
            mask is not None,
        )
    )


def _mask_or_placeholder(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mask, or a placeholder: torchvision needs a tensor even without a mask."""
    return x.new_zeros(len(x), 1) if mask is None else computable(mask)
