"""Lengths of tokens in pictures: how they are distributed, and where the odd ones lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vfd.visualization.theme import Theme, new_figure, style_axes, to_png


@dataclass(frozen=True)
class TokenMaps:
    """Values to draw of one network.

    Attributes:
        name: in the legend and at the rows.
        norms: (images, h, w) lengths of the patch tokens.
        cosine: (images, h, w) with the denoised target.
    """

    name: str
    norms: np.ndarray
    cosine: np.ndarray


def draw_artifacts(images: Sequence[Tensor], networks: Sequence[TokenMaps], theme: Theme) -> bytes:
    """Draw a histogram of token lengths over their median in the image, and maps of the first images.

    Args:
        images: the first images, (3, H, W) RGB in 0..255; one column each.
        networks: one row of lengths and one of dissimilarity each.
        theme: colours.

    Returns:
        A PNG.
    """
    rows = 1 + 2 * len(networks)
    columns = max(2, len(images))
    figure = new_figure(theme, 1.5 + 1.6 * columns, 2.6 + 1.65 * rows)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[2.6, 1.65 * rows])[:, 0]
    axes = top.subplots()
    ratios = [maps.norms / np.median(maps.norms, axis=(1, 2), keepdims=True) for maps in networks]
    # Never so narrow that rounding looks like structure.
    edges = np.linspace(min(0.9, *(r.min() for r in ratios)), max(1.1, *(r.max() for r in ratios)), 60)
    for ratio, maps, colour in zip(ratios, networks, theme.series, strict=False):
        axes.hist(
            ratio.ravel(), edges, histtype='step', linewidth=1.6, color=colour, label=maps.name, log=True
        )
    axes.set(xlabel='length of a token over the median of its image', ylabel='tokens')
    style_axes(axes, theme)
    axes.legend(frameon=False, labelcolor=theme.text, fontsize=9)
    grid = bottom.subplots(rows, columns, squeeze=False)
    for cell in grid.flat:
        cell.set(xticks=[], yticks=[])
        cell.set_frame_on(False)
    for column, image in enumerate(images):
        grid[0][column].imshow(image.permute(1, 2, 0).numpy().astype(np.uint8))
        for row, (maps, ratio) in enumerate(zip(networks, ratios, strict=True)):
            limits = (edges[0], edges[-1])
            grid[1 + row][column].imshow(ratio[column], vmin=limits[0], vmax=limits[1], cmap='viridis')
            off = 1 - maps.cosine[column]
            grid[1 + len(networks) + row][column].imshow(off, vmin=0, vmax=_largest(networks), cmap='magma')
    labels = ['image', *(f'length\n{maps.name}' for maps in networks)]
    labels += [f'1 - cosine\n{maps.name}' for maps in networks]
    for cells, label in zip(grid, labels, strict=True):
        cells[0].set_ylabel(label, color=theme.text, fontsize=9)
    return to_png(figure)


def _largest(networks: Sequence[TokenMaps]) -> float:
    """Return the 99th percentile of dissimilarity over all networks: one colour scale for all maps."""
    return max(float(np.percentile(1 - maps.cosine, 99)) for maps in networks) + 1e-9
