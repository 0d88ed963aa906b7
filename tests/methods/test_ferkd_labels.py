"""Label types, crop boxes, region calibration: what holds for any numbers."""

import numpy as np
import pytest
import torch

from vfd.losses import dense_labels, label_shape
from vfd.methods.ferkd.core import (
    CONTEXT,
    DISCARD,
    SOFT,
    RegionCalibration,
    boxes_to_fractions,
    calibrated_labels,
    calibrated_type,
    categories_of,
    compress,
    confidences_of,
    fractions_to_boxes,
    softened_ground_truth,
)
from vfd.methods.ferkd.crops import draw_crops, seeded

TYPES = [
    'ori',
    'hard',
    'smoothing',
    *(f'marginal_{kind}_k{k}' for kind in ('smoothing', 'renorm') for k in (1, 4, 9)),
]
SOFTENED = [name for name in TYPES if name != 'hard' and 'renorm' not in name]


def probabilities(rows=50, classes=9, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)).softmax(dim=1)


@pytest.mark.parametrize('label_type', TYPES)
def test_recovered_rows_sum_to_one(label_type):
    probs = probabilities()
    stored = compress(probs, label_type)
    assert tuple(stored.shape[1:]) == label_shape(label_type, 9)
    dense = dense_labels(stored, label_type, 9)
    assert dense.shape == probs.shape and (dense >= -1e-15).all()
    torch.testing.assert_close(dense.sum(dim=1).double(), torch.ones(50).double(), rtol=0, atol=1e-12)
    assert (dense.argmax(dim=1) == probs.argmax(dim=1)).all()
    if label_type in ('ori', 'marginal_smoothing_k9', 'marginal_renorm_k9'):
        torch.testing.assert_close(dense, probs, rtol=0, atol=1e-12)


def test_ties_are_broken_by_lower_class():
    probs = torch.tensor([[0.1, 0.3, 0.1, 0.3, 0.1, 0.1], [1 / 6] * 6, [0.5, 0.0, 0.0, 0.0, 0.5, 0.0]])
    for k in range(1, 7):
        order = torch.from_numpy(np.argsort(-probs.numpy(), axis=1, kind='stable')[:, :k])
        stored = compress(probs, f'marginal_smoothing_k{k}')
        assert (stored[:, 0] == order).all() and (stored[:, 1] == probs.gather(1, order)).all()
    assert compress(probs, 'hard').tolist() == [1, 0, 0]


def test_half_labels_are_read_as_float32():
    stored = compress(probabilities().float(), 'marginal_smoothing_k4')
    dense = dense_labels(stored.half(), 'marginal_smoothing_k4', 9)
    torch.testing.assert_close(dense, dense_labels(stored, 'marginal_smoothing_k4', 9), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    'label_type', ['marginal_smoothing', 'marginal_smoothing_k0', 'soft', 'marginal_renorm_5']
)
def test_unknown_label_type(label_type):
    with pytest.raises(ValueError, match='expected one of ori, hard'):
        compress(probabilities(), label_type)


def test_more_classes_than_there_are():
    with pytest.raises(ValueError, match='names 10 classes, there are only 9'):
        compress(probabilities(), 'marginal_renorm_k10')
    with pytest.raises(ValueError, match=r'"smoothing" labels of 9 classes have the shape \(N, 2\)'):
        dense_labels(torch.zeros(3, 2, 5), 'smoothing', 9)


@pytest.mark.parametrize('size', [(1, 1), (40, 56), (375, 500), (2999, 4001), (65535, 60001)])
def test_fractions_give_back_the_boxes(size):
    rng = np.random.default_rng(0)
    corner = np.stack([rng.integers(0, side, 500) for side in size], axis=1)
    extent = np.stack([rng.integers(1, side - corner[:, i] + 1) for i, side in enumerate(size)], axis=1)
    boxes = np.concatenate([corner, extent], axis=1)
    fractions = boxes_to_fractions(boxes, size)
    assert fractions.dtype == np.float32
    np.testing.assert_array_equal(fractions_to_boxes(fractions, size), boxes)


def test_edges_are_rounded_to_even():
    fractions = np.array([[0.25, 0.75, 0.5, 0.25]])
    np.testing.assert_array_equal(fractions_to_boxes(fractions, (10, 10)), [[2, 8, 6, 2]])


def test_crops_depend_on_seed_and_name_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    draws = []
    for seed, name in ((0, 'a'), (0, 'a'), (0, 'b'), (1, 'a')):
        with seeded(seed, name):
            draws.append(draw_crops((30, 50), 20, (0.08, 1.0)))
    assert torch.equal(before, torch.get_rng_state())
    (boxes, flips), *others = draws
    same = [(boxes == b).all() and (flips == f).all() for b, f in others]
    assert same == [True, False, False]
    assert (
        (boxes[:, :2] >= 0).all()
        and (boxes[:, 2:] > 0).all()
        and (boxes[:, :2] + boxes[:, 2:] <= (30, 50)).all()
    )


RULE = RegionCalibration(0.2, 0.5, 0.9, min_keep=0)


def test_intervals_are_half_open_as_written():
    category = RULE.categories(np.array([0.19, 0.2, 0.49, 0.5, 0.9, 0.91]))
    assert category.tolist() == [DISCARD, CONTEXT, CONTEXT, SOFT, SOFT, DISCARD]


@pytest.mark.parametrize('min_keep', range(7))
def test_the_nearest_are_taken_back(min_keep):
    confidences = np.array([0.05, 0.95, 0.5, 0.18, 0.99])  # distances 0.15, 0.05, kept, 0.02, 0.09
    rule = RegionCalibration(0.2, 0.5, 0.9, min_keep=min_keep)
    order = [(2, SOFT), (3, CONTEXT), (1, SOFT), (4, SOFT), (0, CONTEXT)][: max(min_keep, 1)]
    wanted = [DISCARD] * 5
    for row, kind in order:
        wanted[row] = kind
    assert rule.categories(confidences).tolist() == wanted


@pytest.mark.parametrize('label_type', SOFTENED)
@pytest.mark.parametrize('truth', [0, 3, 8])
def test_softened_ground_truth_recovers(label_type, truth):
    stored = torch.from_numpy(softened_ground_truth(truth, label_type, 9, 0.2))[None]
    dense = dense_labels(stored, label_type, 9)[0]
    wanted = torch.full((9,), 0.2 / 8, dtype=torch.float64)
    wanted[truth] = 0.8
    torch.testing.assert_close(dense, wanted, rtol=0, atol=1e-12)
    if label_type.startswith('marginal'):
        assert len(set(stored[0, 0].tolist())) == stored.shape[2]


@pytest.mark.parametrize('label_type', [name for name in TYPES if name != 'hard'])
@pytest.mark.parametrize('confidence', ['max', 'gt'])
def test_calibrated_labels_are_softened_or_the_old_ones(label_type, confidence):
    probs, truth = probabilities(seed=3), 4
    stored = compress(probs, label_type).numpy()
    rule = RegionCalibration(0.3, 0.6, 0.95, confidence=confidence)
    category = categories_of(stored, label_type, 9, truth, rule)
    labels = calibrated_labels(stored, label_type, 9, truth, category, rule.epsilon)
    assert {DISCARD, SOFT} <= set(category.tolist())
    before = dense_labels(torch.from_numpy(stored), label_type, 9)
    wanted = before.max(dim=1).values if confidence == 'max' else before[:, truth]
    if confidence == 'max' and label_type.startswith('marginal_renorm'):
        wanted = probs.max(dim=1).values  # what is stored, before it is normalised again
    confidences = confidences_of(stored, label_type, 9, confidence, truth)
    np.testing.assert_allclose(confidences, wanted, rtol=0, atol=1e-12)
    after = dense_labels(torch.from_numpy(labels), calibrated_type(label_type), 9)
    soft = torch.from_numpy(category == SOFT)
    torch.testing.assert_close(after[soft], before[soft], rtol=0, atol=1e-12)
    context = after[torch.from_numpy(category == CONTEXT)]
    torch.testing.assert_close(context[:, truth], torch.full_like(context[:, truth], 0.9), rtol=0, atol=1e-12)
    torch.testing.assert_close(after.sum(dim=1), torch.ones(50).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ((0.5, 0.3, 0.9), 'expected 0 <= low <= mid <= high <= 1'),
        ((0.1, 0.3, 1.1), 'expected 0 <= low <= mid <= high <= 1'),
        ((0.1, 0.3, 0.9, 1.0), 'epsilon=1.0'),
        ((0.1, 0.3, 0.9, 0.1, 'mean'), 'use "max" or "gt"'),
        ((0.1, 0.3, 0.9, 0.1, 'max', -1), 'min_keep=-1'),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        RegionCalibration(*settings)


def test_hard_labels_have_no_confidence():
    with pytest.raises(ValueError, match='no probability'):
        categories_of(np.array([1, 2]), 'hard', 9, 1, RULE)
