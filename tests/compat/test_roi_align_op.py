"""RoIAlign through mmcv.ops against loops over regions, cells and samples."""

import math

import mmcv.ops
import pytest
import torch

SIZE = (3, 2)  # cells, height and width
SCALE = 0.5
ROIS = torch.tensor(
    [
        [0, 2.3, 1.7, 9.1, 12.9],  # inside
        [1, -6.5, -4.2, 5.3, 7.7],  # sticks out at the top left
        [1, 8.2, 6.1, 40.3, 30.9],  # sticks out at the bottom right
        [0, 60.0, 60.0, 80.0, 75.0],  # outside
        [0, 4.1, 4.2, 4.6, 4.5],  # smaller than a pixel
    ],
    dtype=torch.float64,
)


def sample(plane, y, x):
    """Bilinear value of (C, H, W) at a point; zero from one pixel outside, clamped in between."""
    _, height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return plane.new_zeros(len(plane))
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    value = plane.new_zeros(len(plane))
    for row in (top, top + 1):
        for column in (left, left + 1):
            share = (1 - abs(y - row)) * (1 - abs(x - column))
            if share > 0:
                value = value + share * plane[:, row, column]
    return value


def loop_roi_align(features, rois, size, scale, sampling_ratio, aligned):
    regions = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0) for c in corners)
        high, wide = y2 - y1, x2 - x1
        if not aligned:
            high, wide = max(high, 1.0), max(wide, 1.0)
        step_y, step_x = high / size[0], wide / size[1]
        count_y = sampling_ratio or math.ceil(step_y)
        count_x = sampling_ratio or math.ceil(step_x)
        cells = []
        for i in range(size[0]):
            for j in range(size[1]):
                points = [
                    sample(
                        features[int(image)],
                        y1 + (i + (a + 0.5) / count_y) * step_y,
                        x1 + (j + (b + 0.5) / count_x) * step_x,
                    )
                    for a in range(count_y)
                    for b in range(count_x)
                ]
                cells.append(torch.stack(points).mean(0))
        regions.append(torch.stack(cells, 1).view(-1, *size))
    return torch.stack(regions)


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 9, 11, generator=generator, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_values_and_gradient(features, sampling_ratio, aligned):
    got = mmcv.ops.roi_align(features, ROIS, SIZE, SCALE, sampling_ratio, 'avg', aligned)
    expected = loop_roi_align(features, ROIS, SIZE, SCALE, sampling_ratio, aligned)
    torch.testing.assert_close(got, expected)
    assert not got[3].any() and got[0].any()

    upstream = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=got.dtype)
    (gradient,) = torch.autograd.grad(got, features, upstream)
    (expected_gradient,) = torch.autograd.grad(expected, features, upstream)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_gradcheck(features, sampling_ratio):
    small = features[:, :1, :5, :6].detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: mmcv.ops.roi_align(x, ROIS[:3], SIZE, SCALE, sampling_ratio, 'avg', True), small
    )


def test_module_and_gradient_of_a_strided_upstream(features):
    layer = mmcv.ops.RoIAlign(SIZE, SCALE, 2)
    (gradient,) = torch.autograd.grad(layer(features, ROIS).transpose(2, 3).sum(), features)
    (expected,) = torch.autograd.grad(loop_roi_align(features, ROIS, SIZE, SCALE, 2, True).sum(), features)
    torch.testing.assert_close(gradient, expected)


def test_no_regions(features):
    got = mmcv.ops.roi_align(features, ROIS[:0], SIZE, SCALE, 0, 'avg', True)
    assert got.shape == (0, 3, *SIZE)
    (gradient,) = torch.autograd.grad(got.sum(), features)
    assert not gradient.any()


def test_bfloat16(features):
    half = features.detach().bfloat16().requires_grad_()
    got = mmcv.ops.roi_align(half, ROIS.bfloat16(), SIZE, SCALE, 2, 'avg', True)
    expected = loop_roi_align(half.double(), ROIS.bfloat16(), SIZE, SCALE, 2, True)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), expected, atol=0.02, rtol=0.02)
    (gradient,) = torch.autograd.grad(got.sum(), half)
    assert gradient.dtype == torch.bfloat16 and gradient.any()


def test_maximum_mode_says_what_it_needs(features):
    with pytest.raises(NotImplementedError, match=r'pool_mode="max".*compiled operators'):
        mmcv.ops.roi_align(features, ROIS, SIZE, SCALE, 2, 'max', True)
