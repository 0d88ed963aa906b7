"""A score against a network's cost and its true accuracy, with the networks that no other beats at both."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from vfd.visualization.theme import Theme, new_figure, style_axes, to_png

PANEL = (5.4, 4.0)  # inches
LONGEST = (
    20  # characters of a name that is written beside its point; longer ones stand below, by their number
)
LABELS = 7  # names in a panel at most
# Where a name may stand, in points from its own: above a front and to its left there is nothing.
BESIDE = (
    (-4, 3, 'right'),
    (5, -10, 'left'),
    (5, 3, 'left'),
    (-5, -10, 'right'),
    (8, -3, 'left'),
    (-8, -3, 'right'),
)
LINE = 0.15  # inches of a line below the panels
PER_INCH = 14  # characters of such a line


def pareto_front(scores: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Return the indices of those that no other beats in both: larger score, smaller cost; from cheap to dear."""
    order = np.lexsort((-np.asarray(scores), np.asarray(costs)))  # by cost, the best score of a cost first
    front, best = [], -np.inf
    for index in order:
        if scores[index] > best:
            front.append(int(index))
            best = scores[index]
    return front


def draw_pareto(
    names: Sequence[str],
    scores: Sequence[float],
    costs: Mapping[str, Sequence[float]],
    score: str,
    theme: Theme,
    accuracies: Sequence[float | None] = (),
) -> bytes:
    """Draw one panel a cost, its front as a line with names, and one of the true accuracies where some are known.

    Names that are too long for the panel are numbers there, places by score, and stand below it.

    Args:
        names: of the networks.
        scores: larger is better.
        costs: what is on the x axis -> one value a network.
        score: what the scores are called.
        theme: colours.
        accuracies: of the networks, None where unknown; or nothing.

    Returns:
        A PNG.
    """
    known = [i for i, accuracy in enumerate(accuracies) if accuracy is not None]
    panels = len(costs) + bool(known)
    columns = 2 if panels in (2, 4) else min(panels, 3)
    rows = -(-panels // columns)
    place = {
        int(index): number for number, index in enumerate(np.argsort(-np.asarray(scores), kind='stable'), 1)
    }
    texts = [name if len(name) <= LONGEST else str(place[i]) for i, name in enumerate(names)]
    figure = new_figure(theme, PANEL[0] * columns, PANEL[1] * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    wanted: list[tuple[Axes, Sequence[Any], list[int]]] = []
    for axes, (title, values) in zip(grid, costs.items(), strict=False):
        wanted.append((axes, values, _draw_costs(axes, scores, values, score, title, theme)))
    if known:
        axes = figure.axes[len(costs)]
        wanted.append((axes, accuracies, _draw_accuracies(axes, scores, accuracies, known, score, theme)))
    for axes in figure.axes[panels:]:
        axes.set_visible(False)
    figure.draw_without_rendering()  # the layout, before places are looked for
    labelled = {
        i for axes, values, order in wanted for i in _label(axes, texts, values, scores, order, theme)
    }
    _write_below(figure, [(place[i], names[i]) for i in labelled if texts[i] != names[i]], theme)
    return to_png(figure)


def _draw_costs(
    axes: Axes, scores: Sequence[float], values: Sequence[float], score: str, title: str, theme: Theme
) -> list[int]:
    """Draw points and front; return the networks to name, the most important ones first."""
    front = pareto_front(scores, values)
    _points(axes, values, scores, theme)
    axes.plot(
        [values[i] for i in front], [scores[i] for i in front], color=theme.series[0], linewidth=1.6, marker='o',
        markersize=4.5, label='no other is better and smaller',
    )  # fmt: skip
    if max(values) > 20 * max(min(values), 1e-9):
        axes.set_xscale('log')
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
        axes.xaxis.set_minor_locator(NullLocator())
    _finish(axes, scores, score, title, theme)
    return [front[-1], front[0], *reversed(front[1:-1])]


def _draw_accuracies(
    axes: Axes,
    scores: Sequence[float],
    accuracies: Sequence[Any],
    known: Sequence[int],
    score: str,
    theme: Theme,
) -> list[int]:
    """Draw points; return those to name: the best by score and the truly best."""
    _points(axes, [accuracies[i] for i in known], [scores[i] for i in known], theme)
    by_score = sorted(known, key=lambda i: -scores[i])[:3]
    best = max(known, key=lambda i: accuracies[i])
    axes.plot(
        [accuracies[best]], [scores[best]], linestyle='', marker='o', markersize=6, color=theme.series[1],
        label='truly the best',
    )  # fmt: skip
    _finish(axes, scores, score, 'true accuracy', theme)
    return list(dict.fromkeys([best, *by_score]))


def _points(axes: Axes, x: Sequence[float], y: Sequence[float], theme: Theme) -> None:
    style_axes(axes, theme)
    axes.scatter(x, y, s=22, color=theme.series[2], alpha=0.75, linewidths=0, label='students')


def _finish(axes: Axes, scores: Sequence[float], score: str, title: str, theme: Theme) -> None:
    low, high = min(scores), max(scores)
    axes.set_ylim(low - 0.06 * (high - low + 1e-12), high + 0.18 * (high - low + 1e-12))
    axes.margins(x=0.12)
    axes.set(
        title=f'{score} against {title.partition(",")[0]}', xlabel=title, ylabel=f'{score}, larger is better'
    )
    axes.legend(
        loc='upper center',
        bbox_to_anchor=(0.5, -0.18),
        ncols=2,
        frameon=False,
        fontsize=9,
        labelcolor=theme.text,
    )


def _label(
    axes: Axes, texts: Sequence[str], x: Sequence[Any], y: Sequence[float], order: Iterable[int], theme: Theme
) -> list[int]:
    """Write names beside their points where there is room, over as few points as possible; the points that got one."""
    known = [i for i, value in enumerate(x) if value is not None]
    points = axes.transData.transform([(x[i], y[i]) for i in known])
    halo = [withStroke(linewidth=2.5, foreground=theme.page)]
    taken: list[Any] = []
    done: list[int] = []
    for i in dict.fromkeys(order):
        places: list[tuple[int, int, Any, Any]] = []  # points below, preference, text, its box
        for across, up, side in BESIDE:
            note = axes.annotate(
                texts[i], (x[i], y[i]), xytext=(across, up), textcoords='offset points', ha=side, fontsize=8,
                color=theme.text, path_effects=halo, in_layout=False,
            )  # fmt: skip
            box = note.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and box.y1 <= axes.bbox.y1
            if inside and not any(box.overlaps(other) for other in taken):
                places.append((box.count_contains(points), len(places), note, box))
            else:
                note.remove()
        for number, (_, _, note, box) in enumerate(sorted(places, key=lambda one: one[:2])):
            if number:
                note.remove()
            else:
                taken.append(box)
                done.append(i)
        if len(done) == LABELS:
            break
    return done


def _write_below(figure: Figure, numbered: Sequence[tuple[int, str]], theme: Theme) -> None:
    """Write what the numbers stand for, in a strip that is added to the figure."""
    width, height = figure.get_size_inches()
    lines = [
        line
        for number, name in sorted(numbered)
        for line in textwrap.wrap(f'{number}: {name}', int(PER_INCH * width), subsequent_indent='    ')
    ]
    if not lines:
        return
    lines.insert(0, 'by place:')
    strip = LINE * (len(lines) + 1)
    figure.set_size_inches(width, height + strip)
    figure.set_layout_engine('constrained', rect=(0, strip / (height + strip), 1, height / (height + strip)))
    figure.text(
        0.1 / width, 0.05 / (height + strip), '\n'.join(lines), fontsize=7.5, family='monospace', va='bottom',
        color=theme.muted,
    )  # fmt: skip
