"""Deformable convolutions through mmcv.ops against a loop over output pixels and kernel taps."""

import math
from typing import NamedTuple

import mmcv.ops
import pytest
import torch


class Case(NamedTuple):
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    deform_groups: int = 1


CASES = {
    'plain': Case(),
    'groups': Case(groups=2),
    'deform groups': Case(deform_groups=2),
    'groups, deform groups': Case(groups=2, deform_groups=4),
    'uneven stride, padding, dilation': Case(stride=(2, 1), padding=(0, 2), dilation=(1, 2), deform_groups=2),
}
KERNEL = (3, 2)
CHANNELS_IN, CHANNELS_OUT = 4, 6


def sample(planes, y, x):
    """Bilinear value of (C, H, W) at tensors y and x; zero outside."""
    top, left = math.floor(y.item()), math.floor(x.item())
    value = planes.new_zeros(len(planes))
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < planes.size(1) and 0 <= column < planes.size(2):
                value = value + (1 - (y - row).abs()) * (1 - (x - column).abs()) * planes[:, row, column]
    return value


def loop_deform_conv(x, offset, mask, weight, bias, case):
    batch, channels = x.shape[:2]
    high, wide = weight.shape[2:]
    per_deform_group = channels // case.deform_groups
    out = x.new_zeros(batch, len(weight), *offset.shape[2:])
    for n in range(batch):
        for row in range(out.size(2)):
            for column in range(out.size(3)):
                taps = []  # one (C,) for each kernel position
                for i in range(high):
                    for j in range(wide):
                        parts = []
                        for g in range(case.deform_groups):
                            k = g * high * wide + i * wide + j
                            dy, dx = offset[n, 2 * k, row, column], offset[n, 2 * k + 1, row, column]
                            planes = x[n, g * per_deform_group : (g + 1) * per_deform_group]
                            part = sample(
                                planes,
                                row * case.stride[0] - case.padding[0] + i * case.dilation[0] + dy,
                                column * case.stride[1] - case.padding[1] + j * case.dilation[1] + dx,
                            )
                            parts.append(part if mask is None else part * mask[n, k, row, column])
                        taps.append(torch.cat(parts))
                window = torch.stack(taps, 1)  # (C, kH*kW)
                per_group = window.view(case.groups, channels // case.groups, -1)
                kernel = weight.view(case.groups, len(weight) // case.groups, channels // case.groups, -1)
                out[n, :, row, column] = torch.einsum('gct,goct->go', per_group, kernel).flatten()
    return out if bias is None else out + bias[:, None, None]


def random_inputs(case, size=(5, 6), batch=2, seed=0):
    """Input, offset, mask, weight and bias, float64, all wanting gradients."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    out = [
        (size[d] + 2 * case.padding[d] - case.dilation[d] * (KERNEL[d] - 1) - 1) // case.stride[d] + 1
        for d in (0, 1)
    ]
    taps = case.deform_groups * KERNEL[0] * KERNEL[1]
    tensors = (
        random(batch, CHANNELS_IN, *size),
        random(batch, 2 * taps, *out) * 1.5,  # far enough to leave the image
        random(batch, taps, *out).sigmoid(),
        random(CHANNELS_OUT, CHANNELS_IN // case.groups, *KERNEL),
        random(CHANNELS_OUT),
    )
    return [t.requires_grad_() for t in tensors]


def assert_same_gradients(got, expected, leaves):
    torch.testing.assert_close(got, expected)
    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(9), dtype=got.dtype)
    ours = torch.autograd.grad(got, leaves, upstream)
    theirs = torch.autograd.grad(expected, leaves, upstream)
    for a, b in zip(ours, theirs, strict=True):
        assert a.any()
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())
def test_version_1(case):
    x, offset, _, weight, _ = random_inputs(case)
    got = mmcv.ops.deform_conv2d(x, offset, weight, *case)
    assert_same_gradients(got, loop_deform_conv(x, offset, None, weight, None, case), [x, offset, weight])


@pytest.mark.parametrize('with_bias', [True, False])
@pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())
def test_version_2(case, with_bias):
    x, offset, mask, weight, bias = random_inputs(case)
    if not with_bias:
        bias = None
    got = mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *case)
    leaves = [t for t in (x, offset, mask, weight, bias) if t is not None]
    assert_same_gradients(got, loop_deform_conv(x, offset, mask, weight, bias, case), leaves)


@pytest.mark.parametrize('name', ['groups, deform groups', 'uneven stride, padding, dilation'])
def test_gradcheck(name):
    case = CASES[name]
    x, offset, mask, weight, bias = random_inputs(case, size=(4, 3), batch=1, seed=1)
    assert torch.autograd.gradcheck(lambda *t: mmcv.ops.deform_conv2d(*t, *case), (x, offset, weight))
    assert torch.autograd.gradcheck(
        lambda *t: mmcv.ops.modulated_deform_conv2d(*t, *case),
        (x, offset, mask, weight, bias),
        fast_mode=True,
    )


def test_without_offsets_it_is_a_convolution():
    x, offset, mask, weight, bias = random_inputs(Case())
    got = mmcv.ops.modulated_deform_conv2d(x, offset * 0, mask * 0 + 1, weight, bias, 1, 1)
    torch.testing.assert_close(got, torch.nn.functional.conv2d(x, weight, bias, padding=1))


@pytest.mark.parametrize('layer', [mmcv.ops.DeformConv2dPack, mmcv.ops.ModulatedDeformConv2dPack])
def test_modules_train(layer):
    torch.manual_seed(0)
    module = layer(4, 6, 3, padding=1, deform_groups=2, bias=False)
    module(torch.randn(2, 4, 5, 5)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_bfloat16():
    x, offset, mask, weight, bias = (t.detach().bfloat16() for t in random_inputs(Case()))
    weight.requires_grad_()
    got = mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1)
    expected = loop_deform_conv(*(t.detach().double() for t in (x, offset, mask, weight, bias)), Case())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), expected, atol=0.05, rtol=0.02)
    got.sum().backward()
    assert weight.grad.dtype == torch.bfloat16 and weight.grad.any()
