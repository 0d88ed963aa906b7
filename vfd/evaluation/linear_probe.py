"""A linear classifier on frozen features, with its regularisation chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from vfd.errors import UserError

STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class LinearProbe:
    """Logits ``features @ weight.T + bias``.

    Attributes:
        weight: (C, D), for the features as they are: the scaling used in the fit is folded in.
        bias: (C,).
        strength: the inverse regularisation ``C`` of the logistic regression that was chosen.
        cv_log_loss: mean cross-validated log loss a tried strength; the smallest was chosen.
        cv_accuracy: cross-validated accuracy at the chosen strength.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    cv_log_loss: dict[float, float]
    cv_accuracy: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Compute the logits (N, C) of features (N, D)."""
        return features @ self.weight.T + self.bias


def fit_linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    seed: int = 0,
) -> LinearProbe:
    """Fit a logistic regression to frozen features.

    Features are divided by their mean length: one number, so that the strengths mean the same for every network and
    the result stays linear in the features. The strength is chosen by log loss, which needs calibrated probabilities
    (a student will learn them), on the given features alone.

    Args:
        features: (N, D).
        labels: (N,) in 0..C-1, each class at least twice.
        strengths: tried inverse regularisations.
        folds: of the cross-validation; fewer when a class has fewer images.
        seed: of the folds.

    Raises:
        UserError: a class has fewer than two images, or there is only one class.
    """
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() < 2:
        raise UserError(
            f'a linear probe needs at least two classes and two labelled images of each; found {counts.tolist()}'
        )
    scale = float(np.linalg.norm(features, axis=1).mean()) or 1.0
    scaled = features.astype(np.float64) / scale
    split = StratifiedKFold(min(folds, int(counts.min())), shuffle=True, random_state=seed)
    losses: dict[float, float] = {}
    accuracies: dict[float, float] = {}
    with threadpool_limits(
        1
    ):  # matrices this small gain nothing from threads, and lose much where cores are shared
        for strength in strengths:
            held_out = cross_val_predict(
                _regression(strength), scaled, labels, cv=split, method='predict_proba'
            )
            losses[strength] = float(log_loss(labels, held_out))
            accuracies[strength] = float((held_out.argmax(1) == labels).mean())
        best = min(losses, key=losses.__getitem__)
        fitted = _regression(best).fit(scaled, labels)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(counts) == 2:  # sklearn gives the second class's score against 0 for the first
        weight, bias = np.stack([0 * weight[0], weight[0]]), np.stack([0 * bias[0], bias[0]])
    return LinearProbe(weight / scale, bias, best, losses, accuracies[best])


def _regression(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=3000)
