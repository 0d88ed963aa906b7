"""Limits and scores of candidates during a search; refused candidates are counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vfd.errors import UserError
from vfd.offline.search.record import ScoreRecord, StoredScores
from vfd.offline.search.settings import SIZES, SearchSettings

INVALID = float('-inf')
FAILURES = ('failed', 'unknown')  # kinds of refusal that no limit caused


@dataclass
class Candidate:
    """A scored candidate.

    Attributes:
        name: the candidate.
        flops: multiply-accumulates of one image.
        params: parameters.
        latency_ms: of one image, where it was measured.
        scores: scorer -> one value a seed.
        accuracy: where it is known.
        same_as: the candidate of the same graph whose scores it shares, or an empty string.
    """

    name: str
    flops: float
    params: float
    latency_ms: float | None = None
    scores: dict[str, list[float]] = field(default_factory=dict)
    accuracy: float | None = None
    same_as: str = ''

    def mean(self, scorer: str) -> float:
        """Return the mean of a score over the seeds."""
        values = self.scores[scorer]
        return sum(values) / len(values)


class Judge:
    """Checks candidates and scores them, once each; of those with the same graph the first one.

    Args:
        space: the search space.
        scorer: the ``StudentScorer``.
        settings: limits, and which score counts.
        record: where scores are stored.
    """

    def __init__(
        self,
        space: Any,
        scorer: Any,
        settings: SearchSettings,
        record: ScoreRecord | StoredScores,
    ) -> None:
        self.space, self.scorer, self.settings = space, scorer, settings
        self.record = record
        self.found: dict[str, Candidate] = {}
        self.refused: dict[str, str] = dict.fromkeys(space.unknown, 'unknown')  # candidate -> kind
        self.reasons: dict[str, str] = dict(space.unknown)
        self._costs: dict[str, Candidate | None] = {}
        self._admitted: dict[str, bool] = {}
        self._scored: dict[str, str] = {}  # graph -> the first candidate that has it

    def is_feasible(self, candidate: str) -> bool:
        """Return whether a candidate is valid, can be built and keeps the limits."""
        if candidate not in self._admitted:
            self._admitted[candidate] = self._admit(candidate)
        return self._admitted[candidate]

    def evaluate(self, candidate: str) -> float:
        """Return the mean of the first score; minus infinity for one that cannot be scored.

        Not every searcher checks :meth:`is_feasible` first: the released evolution checks its first member alone.
        """
        known = self._cost(candidate)
        if known is None:
            return INVALID
        entry = self.record.entries.get(candidate)
        if entry is None or 'scores' not in entry:
            found = self._shared(candidate) or self._score(candidate)
            entry = {**(entry or {}), 'candidate': candidate, **found}
            self.record.add(entry)
        if entry['scores'] is None:
            self._refuse(candidate, 'failed', entry['reason'])
            return INVALID
        self._scored.setdefault(self.space.graph_key(candidate), candidate)
        known.same_as = entry.get('same_as', '')
        sizes = {name: [float(getattr(known, name))] * self.settings.seeds for name in SIZES}
        known.scores = {**entry['scores'], **{n: v for n, v in sizes.items() if n in self.settings.scorers}}
        self.found[candidate] = known
        first = self.settings.scorers[0]
        return known.mean(first) if first != 'rank' else 0.0  # known when all are, see ranking.py

    def failures(self) -> dict[str, str]:
        """Return candidate that could not be built or scored -> message."""
        return {one: self.reasons[one] for one, kind in self.refused.items() if kind in FAILURES}

    def counts(self) -> Counter[str]:
        """Return kind of refusal -> number of candidates."""
        return Counter(self.refused.values())

    def _admit(self, candidate: str) -> bool:
        if fault := self.space.invalid_reason(candidate):
            return self._refuse(candidate, fault.partition(':')[0], fault)
        known = self._cost(candidate)
        if known is None:
            return False
        limits = self.settings.limits
        for name, value in (('flops', known.flops), ('params', known.params)):
            if value > limits.get(name, float('inf')):
                return self._refuse(candidate, f'over the limit of {name}', f'{value:.4g} {name}')
        if self.settings.times:
            return self._time(known)
        return True

    def _cost(self, candidate: str) -> Candidate | None:
        """Return the sizes of a candidate before it is scored; None for one that cannot be built."""
        if candidate not in self._costs:
            try:
                cost = self.space.cost(candidate)
                self._costs[candidate] = Candidate(candidate, cost.flops, cost.params)
            except Exception as error:  # whatever a library raises for a network that it cannot build
                self._refuse(candidate, 'failed', _said(error))
                self._costs[candidate] = None
        return self._costs[candidate]

    def _time(self, known: Candidate) -> bool:
        entry = self.record.entries.get(known.name) or {}
        if 'latency_ms' not in entry:
            try:
                entry = {
                    **entry,
                    'candidate': known.name,
                    'latency_ms': self.scorer.latency(self._student(known.name)),
                }
            except Exception as error:
                return self._refuse(known.name, 'failed', _said(error))
            self.record.add(entry)
        known.latency_ms = entry['latency_ms']
        if known.latency_ms > self.settings.limits.get('latency_ms', float('inf')):
            return self._refuse(known.name, 'over the limit of latency_ms', f'{known.latency_ms:.3g} ms')
        return True

    def _shared(self, candidate: str) -> dict[str, Any]:
        """Return the scores of a candidate with the same graph, if any: untrained, both differ by chance alone."""
        same = self._scored.get(self.space.graph_key(candidate))
        return {'scores': self.record.entries[same]['scores'], 'same_as': same} if same else {}

    def _score(self, candidate: str) -> dict[str, Any]:
        try:
            return {'scores': self.scorer.scores(self._student(candidate))}
        except UserError as error:
            return {'scores': None, 'reason': _said(error)}
        except (
            Exception
        ) as error:  # of a library, or of a device without memory: the next run may fare better
            return {'scores': None, 'reason': _said(error), 'again': True}

    def _student(self, candidate: str) -> dict[str, Any]:
        return self.space.student(candidate)

    def _refuse(self, candidate: str, kind: str, reason: str) -> bool:
        self.refused[candidate] = kind
        self.reasons[candidate] = reason
        return False


def _said(error: Exception) -> str:
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if isinstance(error, UserError) else f'{type(error).__name__}: {text}'[:400]
