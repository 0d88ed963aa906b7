"""Weighted nearest neighbours on frozen features: a measure of a representation without any training."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from vfd.errors import UserError


def knn_predict(
    bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, k: int = 10, temperature: float = 0.07
) -> np.ndarray:
    """Let the ``k`` most similar features of a bank vote, each with weight ``exp(similarity / temperature)``.

    Similarity is the cosine. The protocol of Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", 2018 (section 3.4), with its temperature.

    Args:
        bank: (N, D) features with known labels.
        labels: (N,) their labels.
        queries: (M, D) features.
        k: neighbours that vote; all of the bank when it is smaller.
        temperature: the smaller, the more the nearest ones count.

    Returns:
        (M,) predicted labels.

    Raises:
        UserError: the bank is empty, or a feature is not finite.
    """
    if len(bank) == 0:
        raise UserError('kNN needs at least one labelled feature')
    for name, features in (('bank', bank), ('queries', queries)):
        if not np.isfinite(features).all():
            raise UserError(f'kNN: features of the {name} are not finite')
    voters = KNeighborsClassifier(
        n_neighbors=min(k, len(bank)),
        metric='cosine',
        algorithm='brute',
        # Only ratios of weights count; relative to the best possible one nothing overflows.
        weights=lambda distance: np.exp(-distance / temperature),
    )
    return voters.fit(bank, labels).predict(queries)
