"""Dense features as colours: the first three principal components of feature maps, as red, green and blue."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from vfd.errors import UserError

COLOUR_RANGE = (2.0, 98.0)  # percentiles of a component that become 0 and 1


def pca_colours(maps: np.ndarray) -> np.ndarray:
    """Colour feature maps by their first three principal components, fitted to all positions of all maps together.

    Equal colours in two maps mean alike features. Each component is stretched between its 2nd and 98th percentile;
    its sign, which PCA leaves open, is chosen so that its entry of largest size is positive (sklearn's rule).

    Args:
        maps: (N, D, H, W) with D at least 3.

    Returns:
        (N, H, W, 3) in 0..1.

    Raises:
        UserError: fewer than three channels or positions, or values that are not finite.
    """
    images, channels, height, width = maps.shape
    rows = maps.transpose(0, 2, 3, 1).reshape(-1, channels).astype(np.float64)
    if min(rows.shape) < 3 or not np.isfinite(rows).all():
        raise UserError(f'feature maps of shape {maps.shape} need three finite channels and three positions')
    components = PCA(3, svd_solver='full').fit_transform(rows)  # (N*H*W, 3)
    low, high = np.percentile(components, COLOUR_RANGE, axis=0)
    colours = (components - low) / np.maximum(high - low, 1e-12)
    return colours.clip(0, 1).reshape(images, height, width, 3)
