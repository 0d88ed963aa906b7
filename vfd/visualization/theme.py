"""Colours of pictures, for a light and a dark page, and how a figure becomes a PNG."""

from __future__ import annotations

import io
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Theme:
    """Colours of one kind of page.

    Attributes:
        page: background.
        text: titles and values.
        muted: axis labels and ticks.
        rule: grid lines.
        series: data, in the order of use; told apart with any colour vision.
    """

    page: str
    text: str
    muted: str
    rule: str
    series: tuple[str, ...]


LIGHT = Theme('#ffffff', '#1c2430', '#5b6675', '#e3e7ec', ('#0b6bcb', '#c2570c', '#6b7280'))
DARK = Theme('#161b22', '#e6eaf0', '#9aa6b5', '#2c3440', ('#5fb0ff', '#f6a05a', '#a3adba'))


def new_figure(theme: Theme, width: float, height: float) -> Figure:
    """Make an empty figure in inches, not registered with pyplot."""
    figure = Figure(figsize=(width, height), facecolor=theme.page, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, theme: Theme) -> None:
    """Style the axes: horizontal grid lines, no box."""
    axes.set_facecolor(theme.page)
    axes.tick_params(colors=theme.muted, labelsize=9, length=0)
    axes.grid(axis='y', color=theme.rule, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == 'bottom')
        spine.set_color(theme.rule)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.muted)
        label.set_fontsize(9)
    axes.title.set_color(theme.text)
    axes.title.set_fontsize(11)


def to_png(figure: Figure, dpi: int = 144) -> bytes:
    """Render a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=dpi)
    return buffer.getvalue()
