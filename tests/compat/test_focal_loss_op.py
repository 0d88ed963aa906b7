"""The sigmoid focal loss through mmcv.ops against the paper's formula, one logit at a time."""

import math

import mmcv.ops
import pytest
import torch

CLASSES = 4
TARGET = torch.tensor([0, 3, CLASSES, 1, CLASSES, 2, 1])  # CLASSES is background
WEIGHT = torch.tensor([0.5, 2.0, 1.5, 3.0], dtype=torch.float64)


def loop_focal(logits, target, gamma, alpha, weight=None):
    rows = []
    for row, own in zip(logits, target.tolist(), strict=True):
        terms = []
        for c, logit in enumerate(row):
            p = 1 / (1 + torch.exp(-logit))
            p_t, alpha_t = (p, alpha) if c == own else (1 - p, 1 - alpha)
            loss = -alpha_t * (1 - p_t) ** gamma * torch.log(p_t)
            if weight is not None and own < len(row):
                loss = loss * weight[own]
            terms.append(loss)
        rows.append(torch.stack(terms))
    return torch.stack(rows)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(TARGET), CLASSES, generator=generator, dtype=torch.float64).mul(2).requires_grad_()


@pytest.mark.parametrize('weight', [None, WEIGHT], ids=['plain', 'weighted'])
@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (0.0, 0.5), (1.5, 0.75)])
def test_values_and_gradient(logits, gamma, alpha, weight):
    got = mmcv.ops.sigmoid_focal_loss(logits, TARGET, gamma, alpha, weight, 'none')
    expected = loop_focal(logits, TARGET, gamma, alpha, weight)
    torch.testing.assert_close(got, expected)
    upstream = torch.linspace(-1, 2, got.numel(), dtype=got.dtype).view_as(got)
    (gradient,) = torch.autograd.grad(got, logits, upstream)
    (expected_gradient,) = torch.autograd.grad(expected, logits, upstream)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize('reduction', ['none', 'sum', 'mean'])
def test_gradcheck(logits, reduction):
    assert torch.autograd.gradcheck(
        lambda x: mmcv.ops.sigmoid_focal_loss(x, TARGET, 2.0, 0.25, WEIGHT, reduction), logits
    )


def test_background_row_has_no_own_class(logits):
    background = torch.full_like(TARGET, CLASSES)
    got = mmcv.ops.sigmoid_focal_loss(logits, background, 2.0, 0.25, WEIGHT, 'none')
    p = logits.sigmoid()
    torch.testing.assert_close(got, -0.75 * p**2 * torch.log(1 - p))


def test_large_logits_stay_finite():
    logits = torch.tensor([[200.0, -200.0, 200.0, -200.0]], requires_grad=True)
    loss = mmcv.ops.sigmoid_focal_loss(logits, torch.tensor([1]), 2.0, 0.25, None, 'sum')
    assert math.isclose(loss.item(), 0.25 * 200 + 2 * 0.75 * 200, rel_tol=1e-6)
    loss.backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.75, -0.25, 0.75, 0.0]]))


def test_bfloat16_and_no_rows():
    logits = torch.tensor([[1.0, -2.0]], dtype=torch.bfloat16)
    got = mmcv.ops.sigmoid_focal_loss(logits, torch.tensor([1]), 2.0, 0.25, None, 'none')
    expected = loop_focal(logits.double(), torch.tensor([1]), 2.0, 0.25)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), expected, atol=0.01, rtol=0.01)
    none = mmcv.ops.sigmoid_focal_loss(logits[:0], torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum')
    assert none.item() == 0
