"""Multi-scale deformable attention (Zhu et al., 2021, equation 3).

mmcv has the same attention in PyTorch and uses it on the CPU by itself; these kernels give it to CUDA
tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Attend to a few points of every level.

    Args:
        value: (B, sum of H*W, heads, D), the levels one after another.
        value_spatial_shapes: (levels, 2) height and width.
        value_level_start_index: (levels,); follows from the shapes, unused.
        sampling_locations: (B, queries, heads, levels, points, 2) x, y in [0, 1].
        attention_weights: (B, queries, heads, levels, points).
        im2col_step: A setting of the compiled kernel; unused.

    Returns:
        (B, queries, heads * D).
    """
    # Imported late: mmcv's module is just importing this one.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(
        value, value_spatial_shapes, sampling_locations, attention_weights
    )


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Compute the gradients of :func:`ms_deform_attn_forward` by running it again under autograd.

    Args:
        value: As in the forward pass.
        value_spatial_shapes: As in the forward pass.
        value_level_start_index: As in the forward pass.
        sampling_locations: As in the forward pass.
        attention_weights: As in the forward pass.
        grad_output: (B, queries, heads * D).
        grad_value: Filled in place, of the shape of ``value``.
        grad_sampling_loc: Filled in place, of the shape of ``sampling_locations``.
        grad_attn_weight: Filled in place, of the shape of ``attention_weights``.
        im2col_step: Unused.
    """
    leaves = [t.detach().requires_grad_() for t in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = ms_deform_attn_forward(
            leaves[0], value_spatial_shapes, value_level_start_index, leaves[1], leaves[2], im2col_step
        )
        gradients = torch.autograd.grad(output, leaves, grad_output)
    for buffer, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        buffer.copy_(gradient)
