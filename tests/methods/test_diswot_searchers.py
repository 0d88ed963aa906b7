"""Searchers: what evolution reaches on a table of accuracies, limits that hold, seeds that repeat."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from vfd.backbones.nas_bench_201 import format_cell
from vfd.errors import UserError
from vfd.methods.diswot.searchers import INVALID, AgingEvolution, Evolution, Exhaustive, RandomSearch
from vfd.methods.diswot.spaces import CifarResNetSpace, NASBench201Space, PlainNetSpace
from vfd.methods.diswot.table import TableScorer

TABLE = Path(__file__).parents[1] / 'golden/data/diswot/nb201_accuracy.npz'
SPACE = NASBench201Space(100)
LIMIT = 60e6
START = 'SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,2)SuperResK3K3(32,64,2,16,2)'


@pytest.fixture(scope='module')
def oracle() -> TableScorer:
    """CIFAR-100 accuracy of every cell."""
    return TableScorer(SPACE, TABLE, 'cifar100')


def best_of(searcher, oracle, seed: int) -> float:
    history = searcher.run(SPACE, oracle, lambda candidate: True, random.Random(seed))
    assert len(history) == searcher.total(SPACE) == 300
    return max(score for _, score in history)


def test_aging_evolution_finds_cells_that_random_search_does_not(oracle):
    """Published settings (36 members, tournaments of 8), 300 evaluations, mean of 20 seeds."""
    evolved = [best_of(AgingEvolution(300), oracle, seed) for seed in range(20)]
    drawn = [best_of(RandomSearch(300), oracle, seed) for seed in range(20)]
    assert np.mean(evolved) >= 73.2
    assert np.mean(evolved) > np.mean(drawn) + 0.5


def within(candidate: str) -> bool:
    return SPACE.cost(candidate).flops <= LIMIT


@pytest.mark.parametrize(
    'searcher',
    [
        RandomSearch(60),
        AgingEvolution(60, 12, 4),
        AgingEvolution(60, 12, 4, crossover=0.5),
        Evolution(60, 12, crossover=0.5),
    ],
    ids=['random', 'aging', 'aging-crossover', 'evolution'],
)
def test_limits_hold_and_the_same_seed_searches_the_same(searcher, oracle):
    runs = [searcher.run(SPACE, oracle, within, random.Random(seed)) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]
    assert len(runs[0]) == 60 and all(within(candidate) for candidate, _ in runs[0])


def test_crossover_mixes_both_parents():
    one, other = (format_cell((op,) * 6) for op in ('none', 'nor_conv_3x3'))
    child = SPACE.cross(one, other, random.Random(1))
    assert 'none' in child and 'nor_conv_3x3' in child


def test_evolution_starts_at_the_start_and_keeps_the_best():
    space = PlainNetSpace(START, num_classes=10, input_size=32)
    history = Evolution(40, 15).run(
        space,
        lambda one: -space.cost(one).params,
        lambda one: not space.invalid_reason(one),
        random.Random(0),
    )
    scores = [score for _, score in history]
    assert len({one for one, _ in history}) == 40 and max(scores[20:]) > max(scores[:10])


def test_the_whole_of_a_small_space_and_of_a_limited_one():
    space = CifarResNetSpace((1, 2))
    assert [
        one for one, _ in Exhaustive().run(space, lambda one: 0.0, lambda one: True, random.Random(0))
    ] == (space.candidates())
    some = RandomSearch(5).run(space, lambda one: 0.0, lambda one: one.startswith('1'), random.Random(0))
    assert len(some) == 4 and RandomSearch(5).total(space) == 5


@pytest.mark.parametrize(
    'searcher', [RandomSearch(5), AgingEvolution(5, 2, 1), Evolution(5, 2), Exhaustive()]
)
def test_nothing_within_the_limits_ends_the_search(searcher, monkeypatch):
    monkeypatch.setattr('vfd.methods.diswot.searchers.DRAWS', 20)
    space = CifarResNetSpace((1, 2))
    assert searcher.run(space, lambda one: 0.0, lambda one: False, random.Random(0)) == []


@pytest.mark.parametrize('searcher', [AgingEvolution(500, 3, 2), Evolution(500, 3)])
def test_a_space_that_was_tried_whole_ends_the_search(searcher):
    space = CifarResNetSpace((1, 2))
    scored: list[str] = []
    searcher.run(
        space, lambda one: scored.append(one) or 0.0, lambda one: not one.endswith('2'), random.Random(0)
    )
    assert len(scored) < 100 and set(scored) == {'1-1-1', '1-2-1', '2-1-1', '2-2-1'}


def test_candidates_that_cannot_be_scored_do_not_become_parents(oracle):
    def half(candidate: str) -> float:
        return oracle(candidate) if 'avg_pool' not in candidate else INVALID

    history = AgingEvolution(80, 10, 5).run(SPACE, half, lambda one: True, random.Random(0))
    late = [score for _, score in history[40:]]
    assert sum(score == INVALID for score in late) < len(late) / 2


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Exhaustive().total(SPACE), 'too large to go through'),
        (lambda: RandomSearch(0), 'budget=0 must be at least 1'),
        (lambda: AgingEvolution(crossover=2), 'crossover=2 is a probability'),
        (lambda: Evolution(crossover=-1), 'crossover=-1 is a probability'),
        (lambda: AgingEvolution(quirk='official'), 'is not one of None, "released"'),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
