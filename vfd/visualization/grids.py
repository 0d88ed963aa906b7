"""Pictures of images: feature maps beside their inputs, and one image with its best classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vfd.visualization.theme import Theme, new_figure, style_axes, to_png


def draw_grid(rows: Sequence[tuple[str, np.ndarray]], columns: Sequence[str], theme: Theme) -> bytes:
    """Draw rows of pictures with a name at the left, a name above each column.

    Args:
        rows: (name, pictures): pictures (N, H, W, 3), uint8 or in 0..1; sizes may differ from row to row and are shown
            without smoothing.
        columns: N names.
        theme: colours.

    Returns:
        A PNG.
    """
    figure = new_figure(theme, 1.25 + 1.02 * len(columns), 0.3 + 1.06 * len(rows))
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for number, (name, pictures) in enumerate(rows):
        for axes, picture in zip(grid[number], pictures, strict=True):
            axes.imshow(picture, interpolation='nearest')
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
        grid[number][0].set_ylabel(
            name, rotation=0, ha='right', va='center', labelpad=8, color=theme.text, fontsize=9
        )
    for axes, name in zip(grid[0], columns, strict=True):
        axes.set_title(name, color=theme.muted, fontsize=8.5, pad=4)
    return to_png(figure)


def draw_prediction(image: np.ndarray, names: Sequence[str], scores: Sequence[float], theme: Theme) -> bytes:
    """Draw an image beside bars of its best classes.

    Args:
        image: (H, W, 3) RGB uint8.
        names: classes, the best first.
        scores: their probabilities, in 0..1.
        theme: colours.

    Returns:
        A PNG.
    """
    figure = new_figure(theme, 7.6, 3.1)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.55])
    small = max(image.shape[:2]) < 128
    left.imshow(image, interpolation='nearest' if small else 'antialiased')
    left.set_axis_off()
    style_axes(right, theme)
    right.grid(visible=False)
    right.spines['bottom'].set_visible(False)
    places = np.arange(len(names))
    right.barh(places, np.ones(len(names)), height=0.52, color=theme.rule)  # what 100 % would be
    colours = [theme.series[0] if place == 0 else theme.series[2] for place in places]
    right.barh(places, scores, height=0.52, color=colours)
    for place, score in zip(places, scores, strict=True):
        right.text(1.03, place, f'{score:.1%}', va='center', fontsize=10, color=theme.text)
    right.set_yticks(places, names, fontsize=10, color=theme.text)
    right.set(xticks=[], xlim=(0, 1.2), ylim=(len(names) - 0.5, -0.5))
    right.set_title('best classes, probability', loc='left', fontsize=10, color=theme.muted)
    return to_png(figure)
