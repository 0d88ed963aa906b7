"""Ways to go through a search space: all of it, at random, by aging evolution, by evolution that drops the worst.

A searcher takes candidates (strings) from a space and their scores, larger is better, from a function. Everything it
draws comes from one generator, so that the same seed and the same scores give the same candidates again: an
interrupted search is simply run once more, and finds its scores stored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from random import Random
from typing import Literal, Protocol

from vfd.errors import UserError

INVALID = float('-inf')  # score of a candidate that could not be scored
Evaluate = Callable[[str], float]
IsFeasible = Callable[[str], bool]
History = list[tuple[str, float]]

DRAWS = 5_000  # candidates drawn in a row without one that the limits admit
PARENTS = 5  # parents tried whose children are all refused


class Space(Protocol):
    """Interface of a search space for a searcher; candidates are strings."""

    def candidates(self) -> list[str] | None:
        """Return all candidates in a fixed order, or None where they are too many to list."""
        ...

    def random(self, rng: Random) -> str:
        """Return any candidate."""
        ...

    def mutate(self, candidate: str, rng: Random) -> str:
        """Return a neighbour."""
        ...

    def cross(self, one: str, other: str, rng: Random) -> str:
        """Return a child of two."""
        ...


class Searcher(Protocol):
    """See the module."""

    def total(self, space: Space) -> int:
        """Return the largest number of candidates that will be scored."""
        ...

    def run(self, space: Space, evaluate: Evaluate, is_feasible: IsFeasible, rng: Random) -> History:
        """Search; the candidates in the order in which they were scored."""
        ...


class _Planned:
    """A searcher whose candidates are fixed before any is scored: ranks can share its plan."""

    def plan(self, space: Space, is_feasible: IsFeasible, rng: Random) -> list[str]:
        """Return the candidates, in the order in which they are scored."""
        raise NotImplementedError

    def run(self, space: Space, evaluate: Evaluate, is_feasible: IsFeasible, rng: Random) -> History:
        """See :class:`Searcher`."""
        return [(one, evaluate(one)) for one in self.plan(space, is_feasible, rng)]


class Exhaustive(_Planned):
    """Every candidate of a space that can be listed."""

    def total(self, space: Space) -> int:
        """Return the size of the space."""
        return len(self._listed(space))

    def plan(self, space: Space, is_feasible: IsFeasible, rng: Random) -> list[str]:
        """Return all that are feasible."""
        return [one for one in self._listed(space) if is_feasible(one)]

    def _listed(self, space: Space) -> list[str]:
        found = space.candidates()
        if found is None:
            raise UserError(
                'this space is too large to go through: take vfd.RandomSearch or vfd.AgingEvolution'
            )
        return found


class RandomSearch(_Planned):
    """Distinct random candidates.

    Args:
        budget: how many are scored.
    """

    def __init__(self, budget: int = 100) -> None:
        self.budget = _positive('budget', budget)

    def total(self, space: Space) -> int:
        """Return the budget, or the size of a smaller space."""
        return _at_most(self.budget, space)

    def plan(self, space: Space, is_feasible: IsFeasible, rng: Random) -> list[str]:
        """Return as many as the budget allows, each once."""
        listed = space.candidates()
        if listed is not None:
            shuffled = list(listed)
            rng.shuffle(shuffled)
            return list(islice(filter(is_feasible, shuffled), self.budget))
        drawn: dict[str, None] = {}
        while len(drawn) < self.budget:
            one = _draw(lambda: space.random(rng), lambda c: c not in drawn and is_feasible(c))
            if one is None:
                break
            drawn[one] = None
        return list(drawn)


class AgingEvolution:
    """Regularised evolution (arXiv 1802.01548): the best of a tournament has a mutated child, the oldest member leaves.

    Args:
        budget: scored candidates in all, the first population included.
        population: members.
        tournament: how many are drawn, with replacement.
        crossover: probability that a child comes from two parents (two tournaments) before it mutates. The paper of
            DisWOT describes crossover, its code has none.
        quirk: ``released`` does what the released code does, for comparison only: the population starts as copies of
            one candidate, limits are checked for this one alone, and the parent is any of the five *worst* of the
            tournament. None searches as intended.
    """

    def __init__(
        self,
        budget: int = 300,
        population: int = 36,
        tournament: int = 8,
        crossover: float = 0.0,
        quirk: Literal['released'] | None = None,
    ) -> None:
        if quirk not in (None, 'released'):
            raise UserError(f'AgingEvolution: quirk={quirk!r} is not one of None, "released"')
        if not 0 <= crossover <= 1:
            raise UserError(f'AgingEvolution: crossover={crossover} is a probability')
        self.budget = _positive('budget', budget)
        self.population = _positive('population', population)
        self.tournament = _positive('tournament', tournament)
        self.crossover = crossover
        self.quirk = quirk

    def total(self, space: Space) -> int:
        """Return the budget."""
        return self.budget

    def run(self, space: Space, evaluate: Evaluate, is_feasible: IsFeasible, rng: Random) -> History:
        """See :class:`Searcher`."""
        left = set(
            space.candidates() or ()
        )  # of a space that is listed: when all were tried, nothing is left to find
        listed = bool(left)

        def feasible(one: str) -> bool:
            left.discard(one)
            return is_feasible(one)

        members: History = self._first(space, evaluate, feasible, rng)
        history = list(members)
        while members and len(history) < self.budget and not (listed and not left):
            child = self._child(space, members, feasible, rng)
            if child is None:
                break
            entry = (child, evaluate(child))
            history.append(entry)
            members.append(entry)
            members.pop(0)
        return history

    def _first(self, space: Space, evaluate: Evaluate, is_feasible: IsFeasible, rng: Random) -> History:
        size = min(self.population, self.budget)
        members: History = []
        while len(members) < size:
            one = _draw(lambda: space.random(rng), is_feasible)
            if one is None:
                break
            members += [(one, evaluate(one))] * (size if self.quirk else 1)
        return members

    def _child(self, space: Space, members: History, is_feasible: IsFeasible, rng: Random) -> str | None:
        for _ in range(PARENTS):
            parent = self._parent(members, rng)
            if self.crossover and rng.random() < self.crossover:
                parent = space.cross(parent, self._parent(members, rng), rng)
            if self.quirk:
                return space.mutate(parent, rng)
            child = _draw(partial(space.mutate, parent, rng), is_feasible)
            if child is not None:
                return child
        return None

    def _parent(self, members: History, rng: Random) -> str:
        drawn = [rng.choice(members) for _ in range(self.tournament)]
        if self.quirk:
            return rng.choice(sorted(drawn, key=lambda entry: entry[1])[:5])[0]
        return max(drawn, key=lambda entry: entry[1])[0]


class Evolution:
    """Evolution that keeps the best (Zen-NAS): a random member has a child, the worst leaves a full population.

    Args:
        budget: scored candidates in all.
        population: members at most.
        crossover: probability that a child comes from two random members before it mutates; 0 as released.
    """

    def __init__(self, budget: int = 5000, population: int = 512, crossover: float = 0.0) -> None:
        if not 0 <= crossover <= 1:
            raise UserError(f'Evolution: crossover={crossover} is a probability')
        self.budget = _positive('budget', budget)
        self.population = _positive('population', population)
        self.crossover = crossover

    few = 10  # up to so many members, candidates come from the space's start

    def total(self, space: Space) -> int:
        """Return the budget, or the size of a smaller space."""
        return _at_most(self.budget, space)

    def run(self, space: Space, evaluate: Evaluate, is_feasible: IsFeasible, rng: Random) -> History:
        """See :class:`Searcher`."""
        members: History = []
        history: History = []
        seen: set[str] = set()
        while len(history) < self.budget:
            child = _draw(
                lambda: self._child(space, members, rng), lambda c: c not in seen and is_feasible(c)
            )
            if child is None:
                break
            seen.add(child)
            entry = (child, evaluate(child))
            history.append(entry)
            members.append(entry)
            if len(members) > self.population:
                members.remove(min(members, key=lambda one: one[1]))
        return history

    def _child(self, space: Space, members: History, rng: Random) -> str:
        if len(members) <= self.few:
            return space.random(rng)
        parent = rng.choice(members)[0]
        if self.crossover and rng.random() < self.crossover:
            parent = space.cross(parent, rng.choice(members)[0], rng)
        return space.mutate(parent, rng)


def _draw(draw: Callable[[], str], is_feasible: IsFeasible) -> str | None:
    """Draw until a candidate is feasible; None when ``DRAWS`` in a row are not."""
    for _ in range(DRAWS):
        one = draw()
        if is_feasible(one):
            return one
    return None


def _at_most(budget: int, space: Space) -> int:
    found = space.candidates()
    return budget if found is None else min(budget, len(found))


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f'{name}={value} must be at least 1')
    return value
