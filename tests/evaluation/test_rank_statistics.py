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
