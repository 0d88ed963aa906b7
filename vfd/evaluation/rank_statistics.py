"""Rank statistics of a score: correlations, precision at the top, and partial correlation at a fixed budget.

``true`` is what was measured (an accuracy), ``predicted`` the score; for both, larger is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from vfd.errors import UserError

RATIOS = (0.05, 0.1, 0.5)


def kendall(true: np.ndarray, predicted: np.ndarray) -> float:
    """Compute Kendall's tau (tau-b where values are tied); NaN for a constant."""
    return float(stats.kendalltau(*_checked(true, predicted)).statistic)


def spearman(true: np.ndarray, predicted: np.ndarray) -> float:
    """Compute Spearman's rho; NaN for a constant."""
    true, predicted = _checked(true, predicted)
    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return float('nan')
    return float(stats.spearmanr(true, predicted).statistic)


def pearson(true: np.ndarray, predicted: np.ndarray, eps: float = 1e-8) -> float:
    """Compute Pearson's correlation; ``eps`` stands under the root, as in the code published with DisWOT."""
    true, predicted = (values - values.mean() for values in _checked(true, predicted))
    return float(true @ predicted / np.sqrt((true @ true) * (predicted @ predicted) + eps))


def rank_difference(true: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the mean number of places by which the score puts an item too high: half of the mean |d|."""
    true, predicted = (values.argsort().argsort() for values in _checked(true, predicted))
    return float(np.abs(true - predicted).sum() / (2 * len(true)))


def concordant_ratio(true: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the share of entries of one sign in both; the entries are meant to be differences of pairs."""
    true, predicted = _checked(true, predicted)
    return float((true * predicted > 0).sum() / (len(true) + 1e-9))


def rank_at_k(true: np.ndarray, predicted: np.ndarray, ratios: Sequence[float] = RATIOS) -> np.ndarray:
    """Compute the true ranks of the best by score.

    Returns:
        (len(ratios), 5): ratio, best true rank among the best ``int(ratio * n)`` of the score, that rank / n, worst
        true rank among them, that rank / n. Rank 1 is the best.
    """
    true, predicted = _checked(true, predicted)
    rank = _descending(true).argsort() + 1
    order, count = _descending(predicted), len(true)
    rows = []
    for ratio in ratios:
        ranks = rank[order[: _k(ratio, count)]]
        rows.append([ratio, ranks.min(), ranks.min() / count, ranks.max(), ranks.max() / count])
    return np.array(rows, float)


def precision_at_k(true: np.ndarray, predicted: np.ndarray, ratios: Sequence[float] = RATIOS) -> np.ndarray:
    """Compute the share of the truly best (worst) among the best (worst) by score, and tau inside these groups.

    Returns:
        (len(ratios), 6): ratio, k, P@top-k, P@bottom-k, tau of the score's best k, tau of its worst k.
    """
    true, predicted = _checked(true, predicted)
    best_true, best = _descending(true), _descending(predicted)
    rows = []
    for ratio in ratios:
        k = _k(ratio, len(true))
        top, bottom = best[:k], best[-k:]
        rows.append([
            ratio, k,
            len(np.intersect1d(top, best_true[:k])) / k, len(np.intersect1d(bottom, best_true[-k:])) / k,
            _tau_within(true, predicted, top), _tau_within(true, predicted, bottom),
        ])  # fmt: skip
    return np.array(rows, float)


def partial_kendall(true: np.ndarray, predicted: np.ndarray, budget: np.ndarray) -> float:
    """Compute Kendall's tau of truth and score at a fixed budget.

    ``(t_xy - t_xz t_yz) / sqrt((1 - t_xz^2) (1 - t_yz^2))`` (Kendall 1942): what the score explains beyond the
    parameters or FLOPs that stand in ``budget``. NaN when the budget alone already gives the truth or the score.
    """
    between = kendall(true, predicted)
    left, right = kendall(true, budget), kendall(predicted, budget)
    scale = np.sqrt((1 - left**2) * (1 - right**2))
    return float((between - left * right) / scale) if scale > 1e-6 else float('nan')


def sampled_partial_kendall(
    true: np.ndarray, predicted: np.ndarray, budget: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Compute :func:`partial_kendall` of many samples of the items at once.

    tau-b is the cosine of the signs of all pairs' differences, so a sample weighs every pair by both its items.

    Args:
        true: (n,).
        predicted: (n,).
        budget: (n,); a constant one fixes nothing, and leaves Kendall's tau.
        weights: (samples, n), how often each item is in a sample, see :func:`bootstrap_weights` and
            :func:`subset_weights`. An item that is drawn twice is tied with itself.

    Returns:
        (samples,); NaN as there.
    """
    constant = np.ptp(budget) == 0
    signs = [np.sign(values[:, None] - values[None]) for values in map(np.asarray, (true, predicted, budget))]

    def product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return ((weights @ (one * other)) * weights).sum(1)

    with np.errstate(divide='ignore', invalid='ignore'):
        length = [np.sqrt(product(one, one)) for one in signs]
        between, left, right = (
            product(signs[i], signs[j]) / (length[i] * length[j]) for i, j in ((0, 1), (0, 2), (1, 2))
        )
        if constant:
            return between
        scale = np.sqrt((1 - left**2) * (1 - right**2))
        return np.where(scale > 1e-6, (between - left * right) / scale, np.nan)


def bootstrap_weights(count: int, samples: int = 1000, seed: int = 0) -> np.ndarray:
    """Draw weights (samples, count): ``count`` items drawn with replacement, as a bootstrap does."""
    share = np.full(count, 1 / count)
    return np.random.default_rng(seed).multinomial(count, share, size=samples).astype(float)


def subset_weights(count: int, size: int, samples: int, seed: int = 0) -> np.ndarray:
    """Draw weights (samples, count): ``size`` distinct items each."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((samples, count))
    for row in weights:
        row[rng.choice(count, size, replace=False)] = 1
    return weights


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the bounds of the middle ``level`` of the samples; NaN where a sample is NaN."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of repeats, and the repeats."""

    mean: float
    deviation: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f'{self.mean:.2f} ± {self.deviation:.2f}' if len(self.values) > 1 else f'{self.mean:.2f}'


def over_seeds(
    statistic: Callable[[np.ndarray, np.ndarray], float], true: np.ndarray, predicted: np.ndarray
) -> Spread:
    """Compute a statistic for every seed.

    Args:
        statistic: :func:`kendall`, for example.
        true: (n,).
        predicted: (seeds, n).
    """
    values = tuple(statistic(true, row) for row in np.atleast_2d(predicted))
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, values)


def _tau_within(true: np.ndarray, predicted: np.ndarray, group: np.ndarray) -> float:
    return kendall(true[group], predicted[group]) if len(group) > 1 else float('nan')


def _k(ratio: float, count: int) -> int:
    return max(1, int(ratio * count))


def _descending(values: np.ndarray) -> np.ndarray:
    return np.argsort(-values, kind='stable')


def _checked(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    if true.shape != predicted.shape or true.ndim != 1 or len(true) < 2:
        raise UserError(
            f'rank statistics: two lists of one length, at least two values; got {true.shape} and {predicted.shape}'
        )
    if not (np.isfinite(true).all() and np.isfinite(predicted).all()):
        raise UserError('rank statistics: a value is not finite; leave failed candidates out')
    return true, predicted
