import numpy as np
import pytest

from vfd.errors import UserError
from vfd.visualization import pca_colours


def test_equals_the_singular_value_decomposition():
    maps = np.random.default_rng(0).normal(size=(3, 8, 4, 5)) * np.arange(1, 9)[:, None, None]
    rows = maps.transpose(0, 2, 3, 1).reshape(-1, 8)
    rows = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    expected = rows @ axes[:3].T
    low, high = np.percentile(expected, (2, 98), axis=0)
    expected = ((expected - low) / (high - low)).clip(0, 1).reshape(3, 4, 5, 3)
    found = pca_colours(maps)
    for channel in range(3):  # the sign of a component is free
        same = np.abs(found[..., channel] - expected[..., channel]).max()
        flipped = np.abs(found[..., channel] - (1 - expected[..., channel])).max()
        assert min(same, flipped) < 1e-9


def test_like_features_get_like_colours():
    a, b = np.random.default_rng(0).normal(size=(2, 6))
    maps = np.random.default_rng(1).normal(size=(4, 6, 3, 3))
    maps[0, :, 0, 0] = maps[3, :, 2, 2] = a
    maps[1, :, 1, 1] = b
    colours = pca_colours(maps)
    np.testing.assert_allclose(colours[0, 0, 0], colours[3, 2, 2], atol=1e-12)  # BLAS rounds by place
    assert not np.allclose(colours[0, 0, 0], colours[1, 1, 1])


@pytest.mark.parametrize(
    'maps', [np.ones((1, 2, 4, 4)), np.full((1, 4, 4, 4), np.nan), np.ones((1, 4, 1, 2))]
)
def test_unusable_maps_are_refused(maps):
    with pytest.raises(UserError, match='feature maps'):
        pca_colours(maps)
