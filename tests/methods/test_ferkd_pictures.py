"""The histogram of confidences shows the range that they take."""

import io

import numpy as np
import pytest
from PIL import Image

from vfd.methods.ferkd.pictures import _occupied, draw_categories
from vfd.visualization.theme import LIGHT


@pytest.mark.parametrize(
    ('low', 'high', 'shown'),
    [(0.1, 0.101, (0.0999, 0.1011)), (0.98, 1.0, (0.979, 1.0)), (0.05, 0.95, (0, 1)), (0, 0, (0, 1))],
)
def test_all_crops_are_shown_and_narrow_ranges_enlarged(low, high, shown):
    values = np.random.default_rng(0).uniform(low, high, (3, 1000)) if high else np.empty((3, 0))
    histogram = np.stack([np.histogram(row, 10_000, (0, 1))[0] for row in values])
    bars, edges = _occupied(histogram)
    assert (edges[0], edges[-1]) == pytest.approx(shown, abs=1e-4) and len(edges) - 1 == bars.shape[1] <= 50
    for mine, row in zip(bars, values, strict=True):
        np.testing.assert_array_equal(mine, np.histogram(row, edges)[0])
    png = draw_categories(histogram, (0.05, 0.3, 0.99), ('a', 'b', 'c'), 'confidence', LIGHT)
    assert Image.open(io.BytesIO(png)).width > 800
