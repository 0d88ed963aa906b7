import math

import cv2
import numpy as np
import pytest
from scipy import stats

from vfd.datasets import PaddleRandomCrop
from vfd.errors import UserError
from vfd.registry import TRANSFORMS


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain_box(height, width, aspect, part, scale):
    """The published formula read step by step, with the draws given: aspect, and ``part`` in 0..1 of the area range."""
    w_factor, h_factor = math.sqrt(aspect), 1 / math.sqrt(aspect)
    fits = min((width / height) / w_factor**2, (height / width) / h_factor**2)
    smallest, largest = min(scale[0], fits), min(scale[1], fits)
    side = math.sqrt(width * height * (smallest + part * (largest - smallest)))
    return side * h_factor, side * w_factor


@pytest.mark.parametrize(
    ('height', 'width'), [(200, 300), (300, 200), (64, 64), (50, 400), (400, 50), (7, 5)]
)
@pytest.mark.parametrize('scale', [(0.08, 1.0), (0.5, 0.5), (0.9, 1.0)])
def test_box_follows_the_formula(height, width, scale, monkeypatch):
    draws = []
    uniform = np.random.uniform

    def recorded(low, high):
        draws.append((low, high, uniform(low, high)))
        return draws[-1][2]

    monkeypatch.setattr(np.random, 'uniform', recorded)
    crop = PaddleRandomCrop(scale=scale)
    np.random.seed(0)
    for _ in range(50):
        draws.clear()
        top, left, box_height, box_width = crop.random_box(height, width)
        (low, high, aspect), (smallest, largest, area) = draws
        assert (low, high) == (3 / 4, 4 / 3)
        part = (area - smallest) / (largest - smallest) if largest > smallest else 0.0
        expected = plain_box(height, width, aspect, part, scale)
        for size, exact in zip((box_height, box_width), expected, strict=True):
            assert size == max(1, int(exact)) or abs(exact - round(exact)) < 1e-6
        assert 0 <= top <= height - box_height and 0 <= left <= width - box_width


def test_aspect_ratio_is_uniform_and_area_is_uniform():
    crop = PaddleRandomCrop(scale=(0.08, 0.5))
    np.random.seed(1)
    boxes = np.array([crop.random_box(4000, 4000) for _ in range(4000)], dtype=float)
    aspect = boxes[:, 3] / boxes[:, 2]
    area = boxes[:, 2] * boxes[:, 3] / 4000**2
    assert stats.kstest(aspect, stats.uniform(3 / 4, 4 / 3 - 3 / 4).cdf).pvalue > 0.01
    assert stats.kstest(area, stats.uniform(0.08, 0.42).cdf).pvalue > 0.01
    log_uniform = stats.loguniform(3 / 4, 4 / 3)
    assert stats.kstest(aspect, log_uniform.cdf).pvalue < 1e-4  # the test can tell the two apart
    position = boxes[:, 0] / (4000 - boxes[:, 2])
    assert stats.kstest(position, stats.uniform(0, 1).cdf).pvalue > 0.01


def test_whole_image_is_reached_where_the_ratio_fits():
    crop = PaddleRandomCrop(scale=(1.0, 1.0), ratio=(1.5, 1.5))
    assert crop.random_box(200, 300) == (0, 0, 200, 300)


def test_pixels_are_the_resized_box():
    source = image(80, 120)
    crop = PaddleRandomCrop(crop_size=32)
    np.random.seed(3)
    top, left, height, width = crop.random_box(80, 120)
    np.random.seed(3)
    results = crop({'img': source, 'img_shape': (80, 120)})
    expected = cv2.resize(
        source[top : top + height, left : left + width], (32, 32), interpolation=cv2.INTER_LINEAR
    )
    np.testing.assert_array_equal(results['img'], expected)
    assert results['img_shape'] == (32, 32)


def test_height_and_width_backends_and_seeds():
    transform = TRANSFORMS.build({'type': 'vfd.PaddleRandomCrop', 'crop_size': (16, 24), 'backend': 'pillow'})
    outs = []
    for _ in range(2):
        np.random.seed(5)
        outs.append(transform({'img': image(50, 60)})['img'])
    assert outs[0].shape == (16, 24, 3)
    np.testing.assert_array_equal(*outs)
    np.random.seed(6)
    assert (transform({'img': image(50, 60)})['img'] != outs[0]).any()
    assert 'crop_size=(16, 24)' in repr(transform)


def test_extreme_shapes():
    crop = PaddleRandomCrop(crop_size=8)
    for shape in ((1, 1), (1, 1000), (1000, 1), (2, 3)):
        for _ in range(20):
            assert crop({'img': image(*shape)})['img'].shape == (8, 8, 3)


@pytest.mark.parametrize(
    'wrong', [{'scale': (0.5, 0.1)}, {'ratio': (0, 1)}, {'crop_size': 0}, {'crop_size': (1, 2, 3)}]
)
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        PaddleRandomCrop(**wrong)
