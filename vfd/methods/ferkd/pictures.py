"""Pictures of region calibration: confidences by category, example crops, and the crops of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from vfd.visualization.theme import Theme, new_figure, style_axes, to_png

BARS = 50  # of the histogram of confidences


@dataclass(frozen=True)
class ShownCrop:
    """A crop with what is written below it.

    Attributes:
        picture: (S, S, 3) uint8 RGB.
        caption: lines of text.
    """

    picture: np.ndarray
    caption: str


def category_colours(theme: Theme) -> tuple[str, str, str]:
    """Return the colours of discarded, context and important crops."""
    return theme.series[2], theme.series[1], theme.series[0]


def draw_categories(
    histogram: np.ndarray, thresholds: Sequence[float], names: Sequence[str], confidence: str, theme: Theme
) -> bytes:
    """Draw the crops by confidence, coloured by category, with the thresholds; narrow ranges are enlarged.

    Args:
        histogram: (3, B) crops by category and by confidence in 0..1.
        thresholds: low, mid, high.
        names: of the three categories.
        confidence: what the confidence is.
        theme: colours.

    Returns:
        A PNG.
    """
    figure = new_figure(theme, 7.6, 3.4)
    axes = figure.subplots()
    style_axes(axes, theme)
    bars, edges = _occupied(histogram)
    below = np.zeros(len(edges) - 1)
    total = max(int(histogram.sum()), 1)
    for counts, name, colour in zip(bars, names, category_colours(theme), strict=True):
        label = f'{name}: {counts.sum():,} ({counts.sum() / total:.1%})'
        axes.bar(edges[:-1], counts, np.diff(edges), bottom=below, align='edge', color=colour, label=label)
        below = below + counts
    axes.set_ylim(0, 1.3 * max(below.max(), 1))  # room for three lines of text
    for level, (value, name) in enumerate(zip(thresholds, ('T_L', 'T_M', 'T_T'), strict=True)):
        inside = edges[0] <= value <= edges[-1]
        if inside:
            axes.axvline(value, color=theme.text, linewidth=0.9, linestyle=(0, (3, 2)))
        left = value > (edges[0] + edges[-1]) / 2  # of its line, towards the middle
        axes.annotate(
            f'${name}$ {value:.4g}'
            if inside
            else f'${name}$ {value:.4g}, {"right" if left else "left"} of here',
            (float(np.clip(value, edges[0], edges[-1])), 1.0),
            xycoords=('data', 'axes fraction'),
            xytext=(-4 if left else 4, -2 - 12 * level),
            textcoords='offset points',
            ha='right' if left else 'left',
            va='top',
            fontsize=9,
            color=theme.text,
        )
    axes.set(xlim=(edges[0], edges[-1]), xlabel=confidence, ylabel='crops')
    axes.yaxis.set_major_formatter(lambda value, _: f'{value:,.0f}')
    figure.legend(
        loc='outside upper center', ncols=3, frameon=False, fontsize=9, labelcolor=theme.text, handlelength=1
    )
    return to_png(figure)


def _occupied(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return counts and edges of about BARS bars over the range in use, or over 0..1 if that is half of it."""
    bins = histogram.shape[1]
    filled = np.flatnonzero(histogram.any(axis=0))
    first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, bins)
    pad = max(1, (last - first) // 20)
    first, last = max(0, first - pad), min(bins, last + pad)
    if last - first > bins / 2:
        first, last = 0, bins
    width = -(-(last - first) // BARS)  # bins of a bar
    count = -(-(last - first) // width)
    shown = np.zeros((len(histogram), count * width), histogram.dtype)
    shown[:, : last - first] = histogram[:, first:last]
    edges = (first + width * np.arange(count + 1)) / bins
    return shown.reshape(len(histogram), count, width).sum(axis=2), edges


def draw_crop_sheet(rows: Sequence[tuple[str, Sequence[ShownCrop]]], theme: Theme) -> bytes:
    """Draw example crops, one row a category.

    Args:
        rows: (name, crops) of discarded, context and important crops; a row may have none.
        theme: colours.

    Returns:
        A PNG.
    """
    columns = max(max(len(crops) for _, crops in rows), 1)
    lines = max((crop.caption.count('\n') + 1 for _, crops in rows for crop in crops), default=1)
    figure = new_figure(theme, 1.1 + 1.25 * columns, (1.2 + 0.15 * lines) * len(rows))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (name, crops), colour in zip(grid, rows, category_colours(theme), strict=True):
        _name_row(axes[0], name, colour)
        for place, cell in enumerate(axes):
            _show(cell, crops[place] if place < len(crops) else None, colour, theme)
    return to_png(figure)


def draw_regions(
    image: np.ndarray,
    boxes: np.ndarray,
    categories: np.ndarray,
    rows: Sequence[tuple[str, Sequence[ShownCrop]]],
    title: str,
    theme: Theme,
) -> bytes:
    """Draw one image with the boxes of its crops, beside crops of every category.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (M, 4): top, left, height, width in pixels.
        categories: (M,): 0 discarded, 1 context, 2 important.
        rows: (name, crops) of the three categories.
        title: above the image.
        theme: colours.

    Returns:
        A PNG.
    """
    columns = max(max(len(crops) for _, crops in rows), 1)
    lines = max((crop.caption.count('\n') + 1 for _, crops in rows for crop in crops), default=1)
    figure = new_figure(theme, 4.6 + 1.6 * columns, (1.25 + 0.15 * lines) * len(rows))
    parts: Any = figure.subfigures(1, 2, width_ratios=[4.2, 0.4 + 1.6 * columns])
    left, right = parts
    for part in (left, right):
        part.set_facecolor(theme.page)
    axes = left.subplots()
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, color=theme.text, fontsize=10, loc='left')
    colours = category_colours(theme)
    for kind in (0, 1, 2):  # important boxes on top
        for top, x, height, width in boxes[categories == kind]:
            axes.add_patch(
                Rectangle((x - 0.5, top - 0.5), width, height, fill=False, edgecolor='white', linewidth=2.4)
            )
            axes.add_patch(
                Rectangle(
                    (x - 0.5, top - 0.5), width, height, fill=False, edgecolor=colours[kind], linewidth=1.3
                )
            )
    grid = right.subplots(len(rows), columns, squeeze=False)
    for cells, (name, crops), colour in zip(grid, rows, colours, strict=True):
        _name_row(cells[0], name, colour)
        for place, cell in enumerate(cells):
            _show(cell, crops[place] if place < len(crops) else None, colour, theme)
    return to_png(figure)


def _name_row(axes: Axes, name: str, colour: str) -> None:
    axes.set_ylabel(name, color=colour, fontsize=9, fontweight='bold', labelpad=6)


def _show(axes: Axes, crop: ShownCrop | None, colour: str, theme: Theme) -> None:
    axes.set(xticks=[], yticks=[])
    axes.set_facecolor(theme.page)
    for spine in axes.spines.values():
        spine.set_visible(crop is not None)
        spine.set_color(colour)
        spine.set_linewidth(2)
    if crop is None:
        axes.set_aspect('equal')
        return
    axes.imshow(crop.picture)
    axes.set_xlabel(crop.caption, color=theme.muted, fontsize=7, labelpad=3, linespacing=1.25)
