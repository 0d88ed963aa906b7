import numpy as np
import pytest

from vfd.errors import UserError
from vfd.evaluation import knn_predict


def naive(bank, labels, queries, k, temperature):
    """The definition, one query after the other."""
    predicted = []
    for query in queries:
        similarity = [float(query @ b / np.linalg.norm(query) / np.linalg.norm(b)) for b in bank]
        votes = dict.fromkeys(labels.tolist(), 0.0)
        for i in sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]:
            votes[int(labels[i])] += np.exp(similarity[i] / temperature)
        predicted.append(max(votes, key=votes.get))
    return predicted


@pytest.mark.parametrize(('k', 'temperature'), [(1, 0.07), (5, 0.07), (12, 1.0), (60, 0.5)])
def test_equals_a_naive_loop(k, temperature):
    rng = np.random.default_rng(k)
    bank, labels, queries = rng.normal(size=(60, 7)), rng.integers(0, 4, 60), rng.normal(size=(40, 7))
    found = knn_predict(bank, labels, queries, k, temperature)
    assert found.tolist() == naive(bank, labels, queries, k, temperature)


def test_lengths_of_features_do_not_matter():
    rng = np.random.default_rng(0)
    bank, labels, queries = rng.normal(size=(30, 5)), rng.integers(0, 3, 30), rng.normal(size=(20, 5))
    scaled = knn_predict(bank * rng.uniform(0.1, 9, (30, 1)), labels, queries * 100)
    assert scaled.tolist() == knn_predict(bank, labels, queries).tolist()


def test_a_small_bank_votes_as_a_whole():
    assert knn_predict(np.eye(2), np.array([3, 8]), np.eye(2)[::-1] + 0.1, k=10).tolist() == [8, 3]


@pytest.mark.parametrize('bank', [np.zeros((0, 3)), np.full((2, 3), np.nan)])
def test_unusable_features_are_refused(bank):
    with pytest.raises(UserError, match='kNN'):
        knn_predict(bank, np.zeros(len(bank), int), np.ones((1, 3)))
