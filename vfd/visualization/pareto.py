"""A score against what a network costs, and which networks nobody beats at both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from vfd.visualization.theme import Theme, new_figure, style_axes, to_png


def pareto_front(scores: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Indices of those that no other beats in both: larger score, smaller cost; from cheap to dear."""
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
) -> bytes:
    """One panel a cost; the front is a line with the names of its ends and of the best network.

    Args:
        names: of the networks.
        scores: larger is better.
        costs: what is on the x axis -> one value a network.
        score: what the scores are called.
        theme: colours.

    Returns:
        A PNG.
    """
    figure = new_figure(theme, 5.4 * len(costs), 4.0)
    low, high = min(scores), max(scores)
    for axes, (title, values) in zip(
        figure.subplots(1, len(costs), squeeze=False)[0], costs.items(), strict=True
    ):
        style_axes(axes, theme)
        front = pareto_front(scores, values)
        axes.scatter(values, scores, s=22, color=theme.series[2], alpha=0.75, linewidths=0, label='students')
        axes.plot(
            [values[i] for i in front], [scores[i] for i in front], color=theme.series[0], linewidth=1.6, marker='o',
            markersize=4.5, label='nobody is better and smaller',
        )  # fmt: skip
        if max(values) > 20 * max(min(values), 1e-9):
            axes.set_xscale('log')
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low - 0.06 * (high - low + 1e-12), high + 0.18 * (high - low + 1e-12))
        best = int(np.argmax(scores))
        left = values[best] > np.median(values)
        axes.annotate(
            _short(names[best]), (values[best], scores[best]), xytext=(-2 if left else 2, 7),
            textcoords='offset points', ha='right' if left else 'left', fontsize=8, color=theme.text,
        )  # fmt: skip
        axes.set(
            title=f'{score} against {title.partition(",")[0]}',
            xlabel=title,
            ylabel=f'{score}, larger is better',
        )
        axes.legend(
            loc='upper center',
            bbox_to_anchor=(0.5, -0.18),
            ncols=2,
            frameon=False,
            fontsize=9,
            labelcolor=theme.text,
        )
    return to_png(figure)


def _short(name: str, longest: int = 42) -> str:
    return name if len(name) <= longest else f'{name[: longest - 1]}…'
