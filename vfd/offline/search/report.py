"""Report of a search: the ranking beside that by size alone, and how scores and accuracies agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from vfd.evaluation.rank_statistics import (
    bootstrap_weights,
    interval,
    kendall,
    over_seeds,
    partial_kendall,
    precision_at_k,
    rank_at_k,
    sampled_partial_kendall,
    spearman,
)
from vfd.offline.search.judge import Candidate
from vfd.offline.search.ranking import SearchResult
from vfd.offline.search.settings import SIZES, SearchSettings

FEWEST = 5  # known accuracies that a correlation is computed from
MOST = 2_000  # known accuracies for which intervals are computed
TOP = 0.1  # share that P@top and best rank are about
EXAMPLES = 5  # failures that are spelt out
SHOWN = 15  # candidates in the terminal
WIDTH = 130  # columns where there is no terminal, if that is enough


def correlation_rows(ranking: Sequence[Candidate], scorers: Sequence[str]) -> list[dict[str, Any]]:
    """Compute how every score, and size alone, agrees with the known accuracies.

    Returns:
        One row a score and baseline: ``tau``, ``rho`` (mean and deviation over the seeds), ``tau_at_params`` and
        ``tau_at_flops`` (partial, of the mean score; NaN where nothing is left to explain) with an ``_interval`` of
        95 % over bootstrap samples of the candidates, ``precision_at_top``, ``best_rank_at_top``; none where fewer
        than five accuracies are known.
    """
    # by name: where values are tied, their order must not be that of the ranking
    known = sorted((one for one in ranking if one.accuracy is not None), key=lambda one: one.name)
    if len(known) < FEWEST:
        return []
    true = np.array([one.accuracy for one in known], float)
    budgets = {name: np.array([getattr(one, name) for one in known]) for name in SIZES}
    weights = (
        bootstrap_weights(len(known)) if len(known) <= MOST else None
    )  # pairs of all need too much memory
    rows = []
    for name in dict.fromkeys((*scorers, *SIZES)):
        seeds = budgets[name][None] if name in SIZES else np.array([one.scores[name] for one in known]).T
        mean = seeds.mean(0)
        row: dict[str, Any] = {'score': name, 'candidates': len(known)}
        row['tau'] = asdict(over_seeds(kendall, true, seeds))  # NaN where a score is the same for all
        row['rho'] = asdict(over_seeds(spearman, true, seeds))
        for budget, values in budgets.items():
            partial = float('nan') if budget == name else partial_kendall(true, mean, values)
            row[f'tau_at_{budget}'] = partial
            bounds = None
            if weights is not None and math.isfinite(partial):
                bounds = interval(sampled_partial_kendall(true, mean, values, weights))
            row[f'tau_at_{budget}_interval'] = bounds
        row['precision_at_top'] = float(precision_at_k(true, mean, [TOP])[0, 2])
        row['best_rank_at_top'] = int(rank_at_k(true, mean, [TOP])[0, 1])
        rows.append(row)
    return rows


def ranking_json(result: SearchResult, settings: SearchSettings, bad: int) -> dict[str, Any]:
    """Return the whole report in plain values."""
    candidates = []
    for place, one in enumerate(result.ranking, 1):
        scores = {
            name: {
                'mean': one.mean(name),
                'deviation': float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
                'values': values,
            }
            for name, values in one.scores.items()
        }
        candidates.append({
            'rank': place, 'candidate': one.name, 'scores': scores, 'params': one.params, 'flops': one.flops,
            'latency_ms': one.latency_ms, 'accuracy': one.accuracy, 'same_as': one.same_as or None,
        })  # fmt: skip
    return _plain({
        'ranked_by': result.scorer,
        'settings': asdict(settings),
        'candidates': candidates,
        'baselines': {
            name: max(result.ranking, key=lambda one: getattr(one, name)).name for name in SIZES
        },
        'correlations': result.correlations,
        'refused': result.refused,
        'failures': result.failures,
        'unreadable_images': bad,
    })  # fmt: skip


def _plain(value: Any) -> Any:
    """Convert to plain JSON: NaN becomes null."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_report(result: SearchResult, settings: SearchSettings) -> None:
    """Print the tables in the terminal."""
    tables = [_ranking_table(result, settings)]
    if result.correlations:
        tables.append(_correlation_table(result.correlations))
    console = Console()
    if not console.is_terminal:  # nothing has to be folded there
        wide = Console(width=100_000)
        console = Console(width=max([WIDTH, *(wide.measure(table).maximum for table in tables)]))
    console.print(tables[0])
    if shared := sum(bool(one.same_as) for one in result.ranking):
        console.print(
            f'{shared} of {len(result.ranking)} students have the graph of another one and share its scores.',
            highlight=False,
        )
    known = sum(one.accuracy is not None for one in result.ranking)
    if 0 < known < len(result.ranking):
        console.print(
            f'The accuracies of {known} of {len(result.ranking)} students are known.', highlight=False
        )
    if result.correlations:
        console.print(tables[1])
    else:
        few = f'Fewer than {FEWEST}' if known else 'No'
        console.print(
            f'{few} accuracies are known here, so nothing says how far this ranking can be trusted. Size alone is a '
            'strong baseline: compare candidates of equal parameters or FLOPs, or set limits.',
            highlight=False,
        )


def _ranking_table(result: SearchResult, settings: SearchSettings) -> Table:
    title = (
        f'{len(result.ranking)} students, best first by {result.scorer}; #: place by size, the largest first; =n: the '
        'graph of student n'
    )
    table = Table(title=title, title_justify='left', box=SIMPLE)
    accuracy = any(one.accuracy is not None for one in result.ranking)
    table.add_column('')
    table.add_column('student', overflow='fold', min_width=18)
    sizes = [
        'params',
        '#',
        'MFLOPs',
        '#',
        *(['ms'] if settings.times else []),
        *(['accuracy'] if accuracy else []),
    ]
    others = [name for name in settings.scorers[1:] if name not in SIZES]
    for name in (result.scorer, *others, *sizes):
        table.add_column(name, justify='right', overflow='fold')
    places = {one.name: place for place, one in enumerate(result.ranking, 1)}
    by = {name: _places([getattr(one, name) for one in result.ranking]) for name in SIZES}
    for place, one in enumerate(result.ranking[:SHOWN]):
        number = f'={places[one.same_as]}' if one.same_as in places else str(place + 1)
        cells = [number, one.name, _mean_and_spread(one.scores[result.scorer])]
        cells += [f'{one.mean(name):.4g}' for name in others]
        cells += [f'{one.params / 1e6:.3f} M', str(by['params'][place])]
        cells += [f'{one.flops / 1e6:.1f}', str(by['flops'][place])]
        cells += [f'{one.latency_ms:.2f}'] if settings.times else []
        cells += ['' if one.accuracy is None else f'{one.accuracy:.2f}'] if accuracy else []
        table.add_row(*cells)
    if len(result.ranking) > SHOWN:
        table.caption = f'and {len(result.ranking) - SHOWN} more in ranking.json'
    return table


def _correlation_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(
        title=f'agreement with the known accuracies of {rows[0]["candidates"]} students',
        title_justify='left',
        box=SIMPLE,
        caption='params and flops are the baselines that a score has to beat; "at" = partial tau at a fixed budget '
        '[95 % of bootstrap samples of the students]',
    )
    for name in ('score', 'tau', 'rho', 'tau at params', 'tau at FLOPs', 'P@top 10%', 'best rank@10%'):
        table.add_column(name, justify='left' if name == 'score' else 'right', overflow='fold')
    for row in rows:
        table.add_row(
            row['score'], *(_spread(row[name]) for name in ('tau', 'rho')),
            *(_with_interval(row[f'tau_at_{name}'], row[f'tau_at_{name}_interval']) for name in SIZES),
            f'{row["precision_at_top"]:.2f}', str(row['best_rank_at_top']),
        )  # fmt: skip
    return table


def failure_lines(result: SearchResult, bad: int) -> list[str]:
    """Return what was refused, counted, with examples of failures."""
    lines = [f'{count} candidate(s) not ranked: {kind}' for kind, count in sorted(result.refused.items())]
    lines += [f'  {name}: {reason}' for name, reason in list(result.failures.items())[:EXAMPLES]]
    if bad:
        lines.append(f'{bad} image file(s) could not be read')
    return lines


def _places(values: Sequence[float]) -> list[int]:
    """Place of every value, 1 for the largest; equal values share the better one."""
    ordered = sorted(values, reverse=True)
    return [ordered.index(value) + 1 for value in values]


def _mean_and_spread(values: Sequence[float]) -> str:
    mean = f'{np.mean(values):.4g}'
    return f'{mean} ± {np.std(values, ddof=1):.1g}' if len(values) > 1 else mean


def _spread(value: dict[str, Any]) -> str:
    if not math.isfinite(value['mean']):
        return ''
    mean = f'{value["mean"]:.2f}'
    return f'{mean} ± {value["deviation"]:.2f}' if len(value['values']) > 1 else mean


def _with_interval(value: float, bounds: tuple[float, float] | None) -> str:
    if not math.isfinite(value):
        return ''
    known = bounds is not None and all(map(math.isfinite, bounds))
    return f'{value:.2f} [{bounds[0]:.2f}, {bounds[1]:.2f}]' if bounds and known else f'{value:.2f}'
