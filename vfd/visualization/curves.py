"""Training curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vfd.visualization.scalars import Series
from vfd.visualization.theme import Theme, new_figure, style_axes, to_png


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: above it.
        y_label: what is measured, with its unit.
        lines: (name, series) pairs; equal names (other seeds) share a colour.
        levels: (name, value): horizontal reference lines.
        from_zero: whether the axis begins at 0.
    """

    title: str
    y_label: str
    lines: Sequence[tuple[str, Series]]
    levels: Sequence[tuple[str, float]] = field(default_factory=list)
    from_zero: bool = True


def draw_curves(panels: Sequence[Panel], theme: Theme, x_label: str = 'training step') -> bytes:
    """Draw charts side by side, each with its own legend below it.

    Returns:
        A PNG.
    """
    names = list(dict.fromkeys(name for panel in panels for name, _ in panel.lines))
    colours = dict(zip(names, theme.series * len(names), strict=False))
    figure = new_figure(theme, 5.2 * len(panels), 3.7)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        style_axes(axes, theme)
        drawn = set()
        for name, (steps, values) in panel.lines:
            few = len(steps) <= 12
            axes.plot(
                steps, values, color=colours[name], linewidth=1.8, marker='o' if few else None, markersize=4,
                label=None if name in drawn else name,
            )  # fmt: skip
            drawn.add(name)
        for name, value in panel.levels:
            axes.axhline(value, color=theme.muted, linewidth=1.2, linestyle=(0, (4, 3)), label=name)
        axes.set(title=panel.title, xlabel=x_label, ylabel=panel.y_label)
        axes.set_xlim(left=0)
        if panel.from_zero:
            axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
        axes.legend(
            loc='upper center', bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False, fontsize=9,
            labelcolor=theme.text, handlelength=1.6,
        )  # fmt: skip
    return to_png(figure)
