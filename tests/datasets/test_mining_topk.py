import numpy as np
import pytest

from vfd.datasets import TopKMiner, mine_topk
from vfd.errors import UserError


def plain(soft_labels, keep, k):
    """The rule, with sorting instead of heaps."""
    selected, counts = [], []
    predicted = [row.tolist().index(max(row.tolist())) for row in soft_labels]
    for c in range(soft_labels.shape[1]):
        mine = [i for i in range(len(soft_labels)) if keep[i] and predicted[i] == c]
        mine.sort(key=lambda i: (-soft_labels[i, c], i))
        selected += mine[:k]
        counts.append(len(mine[:k]))
    return selected, counts


@pytest.mark.parametrize('seed', range(20))
def test_heaps_agree_with_sorting_ties_included(seed):
    rng = np.random.default_rng(seed)
    pool, classes, k = rng.integers(1, 80), rng.integers(1, 7), rng.integers(1, 12)
    soft_labels = rng.integers(0, 5, (pool, classes)) / 5  # many equal scores
    keep = rng.random(pool) < 0.8
    selected, counts = mine_topk(soft_labels, keep, int(k))
    expected, expected_counts = plain(soft_labels, keep, k)
    assert selected.tolist() == expected and counts.tolist() == expected_counts
    assert selected.dtype == counts.dtype == np.int64


def test_stream_in_any_order_gives_the_same():
    rng = np.random.default_rng(0)
    classes, scores = rng.integers(0, 4, 300), rng.integers(0, 9, 300) / 9
    results = []
    for order in (np.arange(300), rng.permutation(300)):
        miner = TopKMiner(4, 10)
        for part in np.array_split(order, 7):
            miner.add(classes[part], scores[part], part)
        results.append(miner.result())
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1].tolist() == [10] * 4


def test_nothing_kept_and_wrong_k():
    selected, counts = mine_topk(np.ones((3, 2)) / 2, np.zeros(3, bool), 5)
    assert selected.shape == (0,) and counts.tolist() == [0, 0]
    with pytest.raises(UserError, match='k >= 1'):
        TopKMiner(2, 0)
