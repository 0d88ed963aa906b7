"""Sparse soft labels: the same loss and gradient as dense ones, for every label type."""

import pytest
import torch
import torch.nn.functional as F

from vfd.errors import UserError
from vfd.losses import SparseLabels, dense_labels, soft_cross_entropy, sparse_labels
from vfd.methods.ferkd.core import compress

N, C = 7, 11
TYPES = [
    'ori',
    'hard',
    'smoothing',
    'marginal_smoothing_k3',
    f'marginal_smoothing_k{C}',
    'marginal_renorm_k5',
]


def draw(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits, teacher = (torch.randn(N, C, generator=generator, dtype=dtype) * 3 for _ in range(2))
    return logits.requires_grad_(), teacher.softmax(-1)


def plain(logits, labels, temperature=1.0):
    """The formula as it reads."""
    return -(labels * (logits / temperature).log_softmax(-1)).sum(-1).mean()


def gradient(loss, logits):
    (found,) = torch.autograd.grad(loss, logits)
    return found


@pytest.mark.parametrize('label_type', TYPES)
@pytest.mark.parametrize('temperature', [1.0, 2.5])
def test_sparse_equals_dense_with_gradients(label_type, temperature):
    logits, probs = draw()
    stored = compress(probs, label_type)
    dense = dense_labels(stored, label_type, C)
    loss = soft_cross_entropy(logits, sparse_labels(stored, label_type, C), temperature)
    expected = plain(logits, dense, temperature)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(loss, logits), gradient(expected, logits), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('label_type', TYPES)
def test_every_recovered_label_sums_to_one(label_type):
    _, probs = draw(torch.float32)
    labels = sparse_labels(compress(probs, label_type), label_type, C)
    dense = labels.dense(C) if isinstance(labels, SparseLabels) else labels
    torch.testing.assert_close(dense.double().sum(1), torch.ones(N, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_logits_and_half_labels(dtype):
    logits, probs = draw(torch.float32)
    stored = compress(probs, 'marginal_smoothing_k5').half()
    logits = logits.detach().to(dtype).requires_grad_()
    loss = soft_cross_entropy(logits, sparse_labels(stored, 'marginal_smoothing_k5', C))
    assert loss.dtype == torch.float32
    expected = plain(logits.float(), dense_labels(stored, 'marginal_smoothing_k5', C).float())
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert gradient(loss, logits).dtype == dtype


def test_float32_is_accurate_far_from_zero():
    """An offset of all logits changes nothing; a plain sum over them would drown in it."""
    logits, probs = draw()
    labels = sparse_labels(compress(probs, 'marginal_smoothing_k5'), 'marginal_smoothing_k5', C)
    shifted = (logits.detach() * 64).round() / 64 + 4096  # exact in float32
    ours = soft_cross_entropy(shifted.float(), labels)
    torch.testing.assert_close(ours.double(), soft_cross_entropy(shifted, labels), rtol=1e-6, atol=1e-6)


def test_rows_need_not_sum_to_one():
    logits, probs = draw()
    labels = SparseLabels(torch.tensor([[1, 1]] * N), torch.tensor([[0.3, 0.5]] * N), torch.full((N,), 0.07))
    loss = soft_cross_entropy(logits, labels)
    expected = plain(logits, labels.dense(C).double())
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient(loss, logits), gradient(expected, logits), rtol=1e-6, atol=1e-7)
    half = soft_cross_entropy(logits, probs / 2)
    torch.testing.assert_close(half, F.cross_entropy(logits, probs) / 2)


def test_gradient_in_float64():
    logits, probs = draw()
    labels = sparse_labels(compress(probs, 'marginal_smoothing_k3'), 'marginal_smoothing_k3', C)
    assert torch.autograd.gradcheck(lambda z: soft_cross_entropy(z, labels, 1.7), (logits,))


@pytest.mark.parametrize('label_type', TYPES[1:])
def test_mixing_sparse_labels_equals_mixing_dense_ones(label_type):
    _, probs = draw()
    labels = sparse_labels(compress(probs, label_type), label_type, C)
    assert isinstance(labels, SparseLabels)
    partner, share = torch.randperm(N), torch.rand(N, dtype=torch.float64)
    mixed = labels.mixed(partner, share).dense(C)
    dense = labels.dense(C)
    torch.testing.assert_close(mixed, share[:, None] * dense + (1 - share[:, None]) * dense[partner])


@pytest.mark.parametrize(
    ('stored', 'label_type', 'message'),
    [
        (torch.zeros(3, 2, 5), 'marginal_smoothing', 'expected one of'),
        (torch.zeros(3, 2, 5), 'marginal_k5', 'expected one of'),
        (torch.zeros(3, 2, 5), 'marginal_smoothing_k4', r'\(3, 2, 5\)'),
        (torch.zeros(3, 5), 'ori', r'\(N, 11\)'),
        (torch.full((3,), 11), 'hard', 'another data set'),
        (torch.tensor([[[-1.0], [0.5]]]), 'marginal_renorm_k1', 'another data set'),
        (torch.zeros(3, 2, 12), 'marginal_renorm_k12', 'only 11'),
    ],
)
def test_labels_that_do_not_fit_are_refused(stored, label_type, message):
    with pytest.raises(UserError, match=message):
        sparse_labels(stored, label_type, C)


def test_batches_that_do_not_fit_are_refused():
    logits, probs = draw()
    with pytest.raises(UserError, match='logits'):
        soft_cross_entropy(logits, probs[:-1])
    with pytest.raises(UserError, match='logits'):
        soft_cross_entropy(logits, sparse_labels(torch.zeros(3), 'hard', C))
