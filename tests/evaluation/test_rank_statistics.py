"""Rank statistics: values that can be seen without a computer, agreement with scipy, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vfd.errors import UserError
from vfd.evaluation import rank_statistics as rs

TRUE = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10])


def test_perfect_and_reversed_rankings():
    for sign in (1, -1):
        assert rs.kendall(TRUE, sign * TRUE**3) == rs.spearman(TRUE, sign * TRUE**3) == pytest.approx(sign)
    assert rs.pearson(TRUE, 2 * TRUE) == pytest.approx(1)
    assert rs.rank_difference(TRUE, TRUE) == 0 and rs.rank_difference(TRUE, -TRUE) == 2.5
    assert rs.concordant_ratio(TRUE - 5.5, 5.5 - TRUE) == 0


def test_the_top_of_the_score():
    predicted = TRUE.copy()
    predicted[0] = 11  # the worst is said to be the best
    assert rs.rank_at_k(TRUE, predicted, [0.2]).tolist() == [[0.2, 1, 0.1, 10, 1.0]]
    ratio, k, top, bottom, tau_top, tau_bottom = rs.precision_at_k(TRUE, predicted, [0.2])[0]
    assert (ratio, k, top, bottom, tau_top, tau_bottom) == (0.2, 2, 0.5, 0.5, -1, 1)


def test_partial_correlation_takes_the_budget_out():
    rng = np.random.default_rng(0)
    budget = rng.normal(size=200)
    skill = rng.normal(size=200)
    true = budget + 0.5 * skill
    assert rs.kendall(true, budget) > 0.5
    only_size = rs.partial_kendall(true, budget + 0.3 * rng.normal(size=200), budget)
    assert abs(only_size) < 0.25 < 0.35 < rs.partial_kendall(true, skill, budget)
    assert np.isnan(rs.partial_kendall(true, budget, budget))
    assert np.isnan(rs.partial_kendall(true, skill, skill**3))
    xy, xz, yz = (stats.kendalltau(*pair)[0] for pair in ((true, skill), (true, budget), (skill, budget)))
    assert rs.partial_kendall(true, skill, budget) == pytest.approx(
        (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    )


def test_samples_have_the_statistics_of_the_items_in_them():
    """Of subsets scipy's own; of items that are drawn twice those of a list that has them twice."""
    rng = np.random.default_rng(0)
    true, predicted, budget = rng.integers(0, 9, (3, 30)).astype(float)  # with ties
    subsets = rs.subset_weights(30, 12, samples=20, seed=1)
    assert set(subsets.sum(1)) == {12} and subsets.max() == 1 and len(np.unique(subsets, axis=0)) > 1
    bootstrap = rs.bootstrap_weights(30, samples=20, seed=1)
    assert set(bootstrap.sum(1)) == {30} and bootstrap.max() > 1
    for weights in (subsets, bootstrap, np.ones((1, 30))):
        partial = rs.sampled_partial_kendall(true, predicted, budget, weights)
        plain = rs.sampled_partial_kendall(true, predicted, np.zeros(30), weights)
        for row, one, other in zip(weights.astype(int), partial, plain, strict=True):
            drawn = [np.repeat(values, row) for values in (true, predicted, budget)]
            assert one == pytest.approx(rs.partial_kendall(*drawn)) and other == pytest.approx(
                rs.kendall(*drawn[:2])
            )
    assert np.isnan(rs.sampled_partial_kendall(true, budget, budget, subsets)).all()


def test_the_interval_of_a_bootstrap_covers_what_other_samples_give():
    rng = np.random.default_rng(3)
    population = rng.normal(size=(2, 4000))
    true, predicted = population[0], population.sum(0)
    whole, hits = rs.kendall(true, predicted), 0
    for number in range(100):
        drawn = rng.choice(4000, 50, replace=False)
        weights = rs.bootstrap_weights(50, samples=200, seed=number)
        low, high = rs.interval(
            rs.sampled_partial_kendall(true[drawn], predicted[drawn], np.zeros(50), weights)
        )
        hits += low <= whole <= high
        assert high - low < 0.5
    assert 88 <= hits <= 100


def test_spread_over_seeds():
    spread = rs.over_seeds(rs.kendall, TRUE, np.stack([TRUE, -TRUE]))
    assert spread.mean == 0 and spread.deviation == pytest.approx(2**0.5) and str(spread) == '0.00 ± 1.41'
    assert str(rs.over_seeds(rs.kendall, TRUE, TRUE)) == '1.00'


def test_ties_and_constants():
    assert rs.kendall(TRUE, np.floor(TRUE / 2)) == stats.kendalltau(TRUE, np.floor(TRUE / 2))[0]
    assert np.isnan(rs.kendall(TRUE, 0 * TRUE)) and np.isnan(rs.spearman(TRUE, 0 * TRUE))


@pytest.mark.parametrize('wrong', [TRUE[:3], np.full(10, np.nan), TRUE[:, None]])
def test_lists_that_do_not_fit(wrong):
    with pytest.raises(UserError, match='rank statistics'):
        rs.kendall(TRUE, wrong)
