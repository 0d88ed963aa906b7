"""Multi-scale deformable attention through mmcv.ops against a loop over queries, heads, levels and points."""

import math

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

SHAPES = torch.tensor([[4, 5], [2, 3]])  # height and width of each level
STARTS = torch.tensor([0, 20])
BATCH, QUERIES, HEADS, POINTS, DIMS = 2, 3, 2, 2, 3


def sample(plane, y, x):
    """Bilinear value of (H, W, D) at tensors y and x, pixel centres at integers; zero outside."""
    top, left = math.floor(y.item()), math.floor(x.item())
    value = plane.new_zeros(plane.size(2))
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < plane.size(0) and 0 <= column < plane.size(1):
                value = value + (1 - (y - row).abs()) * (1 - (x - column).abs()) * plane[row, column]
    return value


def loop_attention(value, locations, weights):
    out = []
    for b in range(BATCH):
        for q in range(QUERIES):
            for h in range(HEADS):
                total = value.new_zeros(DIMS)
                for level, (high, wide) in enumerate(SHAPES.tolist()):
                    start = int(STARTS[level])
                    plane = value[b, start : start + high * wide, h].view(high, wide, DIMS)
                    for p in range(POINTS):
                        x, y = locations[b, q, h, level, p]
                        total = total + weights[b, q, h, level, p] * sample(
                            plane, y * high - 0.5, x * wide - 0.5
                        )
                out.append(total)
    return torch.stack(out).view(BATCH, QUERIES, HEADS * DIMS)


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    levels = len(SHAPES)
    value = torch.randn(BATCH, 26, HEADS, DIMS, generator=generator, dtype=torch.float64)
    # a little beyond the image on every side
    locations = torch.rand(BATCH, QUERIES, HEADS, levels, POINTS, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(BATCH, QUERIES, HEADS, levels, POINTS, generator=generator, dtype=torch.float64)
    return [t.requires_grad_() for t in (value, locations * 1.4 - 0.2, weights)]


def attend(value, locations, weights):
    return MultiScaleDeformableAttnFunction.apply(value, SHAPES, STARTS, locations, weights, 64)


def test_values_and_gradients(tensors):
    got, expected = attend(*tensors), loop_attention(*tensors)
    torch.testing.assert_close(got, expected)
    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=got.dtype)
    leaves = tensors
    ours = torch.autograd.grad(got, leaves, upstream)
    theirs = torch.autograd.grad(expected, leaves, upstream)
    for a, b in zip(ours, theirs, strict=True):
        assert a.any()
        torch.testing.assert_close(a, b)


def test_gradcheck(tensors):
    assert torch.autograd.gradcheck(attend, tensors)


def test_module():
    torch.manual_seed(0)
    module = MultiScaleDeformableAttention(
        8, num_heads=HEADS, num_levels=2, num_points=POINTS, batch_first=True
    )
    torch.nn.init.normal_(module.attention_weights.weight)
    query, value = torch.randn(1, QUERIES, 8), torch.randn(1, 26, 8)
    out = module(
        query,
        value=value,
        reference_points=torch.rand(1, QUERIES, 2, 2),
        spatial_shapes=SHAPES,
        level_start_index=STARTS,
    )
    assert out.shape == query.shape
    out.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
