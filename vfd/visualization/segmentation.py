"""A segmented image: classes in colours, with their names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.patches import Patch

from vfd.visualization.theme import Theme, new_figure, to_png

_OPACITY = 0.6


def class_colours(count: int) -> np.ndarray:
    """Return colours (count, 3) in 0..1 of classes: twenty that differ clearly, then hues at the golden angle."""
    named = np.array(colormaps['tab20'].colors)  # type: ignore[attr-defined]
    order = np.concatenate([np.arange(0, 20, 2), np.arange(1, 20, 2)])  # the strong ones first
    hues = colormaps['hsv']((np.arange(max(0, count - 20)) * 0.381966) % 1)[:, :3]
    return np.concatenate([named[order], hues])[:count]


def draw_segmentation(
    image: np.ndarray, labels: np.ndarray, names: list[str], shares: Mapping[str, float], theme: Theme
) -> bytes:
    """Draw the image, the image under its coloured labels, and a legend of the classes that were found.

    Args:
        image: (H, W, 3) RGB uint8.
        labels: (H, W) classes.
        names: of all classes.
        shares: name -> share of the area, of the classes to list, in that order.
        theme: colours.

    Returns:
        A PNG.
    """
    colours = class_colours(len(names))
    mixed = (1 - _OPACITY) * image / 255 + _OPACITY * colours[labels]
    height, width = labels.shape
    side = 3.4
    figure = new_figure(theme, 2 * side + 2.2, max(side * height / width, 0.24 * len(shares)) + 0.4)
    left, right = figure.subplots(1, 2)
    for axes, picture, title in ((left, image, 'image'), (right, mixed, 'classes')):
        axes.imshow(picture, interpolation='nearest' if max(height, width) < 128 else 'antialiased')
        axes.set_axis_off()
        axes.set_title(title, color=theme.text, fontsize=10)
    handles = [
        Patch(color=colours[names.index(name)], label=f'{name}, {share:.0%}')
        for name, share in shares.items()
    ]
    figure.legend(
        handles=handles,
        loc='outside right center',
        frameon=False,
        labelcolor=theme.text,
        fontsize=9,
        handlelength=1.0,
    )
    return to_png(figure)
