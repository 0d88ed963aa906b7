"""Plan and progress of the scoring of candidates."""

from __future__ import annotations

import time
from collections.abc import Collection
from types import TracebackType

from vfd.offline.step import Step
from vfd.stores import Progress

SEED_BYTES = 200  # of a candidate's line in the record, about


class SearchProgress:
    """A plan as soon as the first candidate was timed, then the progress.

    Args:
        step: of the search.
        total: candidates that will be scored.
        known: those of them whose scores an earlier run has stored.
        seeds: scores a candidate.
    """

    def __init__(self, step: Step, total: int, known: Collection[str], seeds: int) -> None:
        self.step, self.total, self.known, self.seeds = step, total, set(known), seeds
        self.done = min(len(self.known), total)
        self._progress: Progress | None = None
        self._begin = time.perf_counter()

    def count(self, candidate: str) -> None:
        """Count a candidate that has its score."""
        if candidate in self.known:  # counted from the start, once
            self.known.discard(candidate)
            return
        if self._progress is None:
            self._progress = self._start(time.perf_counter() - self._begin).__enter__()
        self._progress.advance(1)

    def _start(self, seconds: float | None) -> Progress:
        return self.step.run(self.total, self.done, SEED_BYTES * self.seeds, seconds)

    def __enter__(self) -> SearchProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.__exit__(kind, error, trace)
        elif kind is None:
            self._start(None)
