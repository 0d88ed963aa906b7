"""The result of a search: candidates ranked by their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from vfd.offline.search.judge import Candidate, Judge


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        ranking: candidates, best first.
        scorer: the score that they are ranked by.
        correlations: rows of the table of correlations; empty where no accuracy is known.
        refused: kind of refusal -> how many candidates.
        failures: candidate that could not be built or scored -> why.
        seconds: of scoring in this run.
        files: what was written.
    """

    ranking: list[Candidate]
    scorer: str
    correlations: list[dict[str, Any]]
    refused: dict[str, int]
    failures: dict[str, str]
    seconds: float
    files: dict[str, Path]


def rank(judge: Judge, scorer: str) -> list[Candidate]:
    """Rank scored candidates, best first; equal scores by their names, shared ones behind their origin.

    ``rank`` gets its scores here: for every seed the mean over the semantic and the relation metric of the rank among
    all candidates (the largest is the best), so that both weigh equally.
    """
    found = sorted(
        judge.found.values(), key=lambda one: (one.same_as or one.name, bool(one.same_as), one.name)
    )
    if found and 'rank' in judge.settings.scorers:
        combined = rank_combined([[one.scores[part] for one in found] for part in ('semantic', 'relation')])
        for one, values in zip(found, combined, strict=True):
            one.scores['rank'] = values.tolist()
    return sorted(found, key=lambda one: -one.mean(scorer))


def rank_combined(parts: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """Combine scores so that they weigh equally.

    Args:
        parts: arrays (n, seeds) of scores, larger is better.

    Returns:
        (n, seeds): the mean rank of every candidate, ties sharing one; n is the best.
    """
    return np.mean([rankdata(np.asarray(part), axis=0) for part in parts], axis=0)
