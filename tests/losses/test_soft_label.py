"""The losses between logits: values against formulas written in numpy, gradients, properties, mistakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vfd.errors import UserError
from vfd.losses import SSLDLoss, ce, js, js_legacy, kl

LOSSES = [
    pytest.param(js, id='js'),
    pytest.param(js_legacy, id='js_legacy'),
    pytest.param(lambda s, t: js(s, t, act='sigmoid'), id='js_sigmoid'),
    pytest.param(lambda s, t: js(s, t, sum_across_class_dim=True), id='js_sumclass'),
    pytest.param(ce, id='ce'),
    pytest.param(kl, id='kl'),
]


def logits(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale


def softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def two_kl_form(student: np.ndarray, teacher: np.ndarray, eps: float) -> float:
    """The loss as the paper's code is written: both divergences, C times, then the mean over B and C."""
    p, q = softmax(teacher), softmax(student)
    both = p * np.log((p + eps) / (q + eps)) + q * np.log((q + eps) / (p + eps))
    return float((both * both.shape[-1] / 2).mean())


@pytest.mark.parametrize('scale', [0.1, 3.0, 30.0])
@pytest.mark.parametrize('eps', [1e-12, 1e-10, 1e-6])
def test_js_is_half_of_both_divergences(scale, eps):
    student, teacher = logits(5, 11, seed=1, scale=scale), logits(5, 11, seed=2, scale=scale)
    expected = two_kl_form(student.numpy(), teacher.numpy(), eps)
    assert js(student, teacher, eps).item() == pytest.approx(expected, rel=1e-12)


def test_js_legacy_is_js_with_another_epsilon():
    student, teacher = logits(4, 9, seed=1, scale=20), logits(4, 9, seed=2, scale=20)
    assert js_legacy(student, teacher).equal(js(student, teacher, eps=1e-10))
    assert abs(js_legacy(student, teacher) - js(student, teacher)) > 1e-3


def test_the_epsilon_caps_one_hot_rows():
    """Two rows of certainty about different classes: the log ratio is ln(1e12), not the logits' distance."""
    student, teacher = torch.tensor([[60.0, 0, 0]]).double(), torch.tensor([[0.0, 60, 0]]).double()
    assert js(student, teacher).item() == pytest.approx(math.log(1e12), rel=1e-3)


def test_ce_and_kl_values():
    student, teacher = logits(6, 7, seed=3).numpy(), logits(6, 7, seed=4).numpy()
    p = softmax(teacher)
    expected = -(p * np.log(softmax(student))).sum(-1).mean()
    assert ce(torch.tensor(student), torch.tensor(teacher)).item() == pytest.approx(expected, rel=1e-12)
    for temperature in (1.0, 2.0, 4.0):
        p, q = softmax(teacher / temperature), softmax(student / temperature)
        expected = temperature**2 * (p * np.log(p / q)).sum(-1).mean()
        ours = kl(torch.tensor(student), torch.tensor(teacher), temperature)
        assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_sum_across_class_dim_is_c_times_larger():
    student, teacher = logits(4, 13, seed=1), logits(4, 13, seed=2)
    wide = js(student, teacher, sum_across_class_dim=True)
    assert wide.item() == pytest.approx(13 * js(student, teacher).item(), rel=1e-14)


@pytest.mark.parametrize('loss', LOSSES)
def test_gradcheck(loss):
    student = logits(3, 5, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, logits(3, 5, seed=6)), [student])


@pytest.mark.parametrize('loss', LOSSES)
def test_no_gradient_reaches_the_teacher(loss):
    student, teacher = logits(3, 5, seed=5).requires_grad_(), logits(3, 5, seed=6).requires_grad_()
    loss(student, teacher).backward()
    assert student.grad is not None and teacher.grad is None


@pytest.mark.parametrize('loss', [entry for entry in LOSSES if entry.id != 'ce'])
def test_equal_logits_cost_nothing(loss):
    student = logits(4, 9, scale=10).requires_grad_()
    value = loss(student, student.detach().clone())
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-14)
    assert student.grad.abs().max() < 1e-14


def test_ce_of_equal_logits_is_the_entropy_and_has_no_gradient():
    student = logits(4, 9).requires_grad_()
    p = student.detach().softmax(-1)
    value = ce(student, student.detach().clone())
    value.backward()
    assert value.item() == pytest.approx(-(p * p.log()).sum(-1).mean().item(), rel=1e-12)
    assert student.grad.abs().max() < 1e-14


@pytest.mark.parametrize('act', ['softmax', 'sigmoid'])
def test_js_is_symmetric_and_not_negative(act):
    a, b = logits(8, 9, seed=1, scale=15), logits(8, 9, seed=2, scale=15)
    assert js(a, b, act=act).item() == pytest.approx(js(b, a, act=act).item(), rel=1e-14)
    assert js(a, b, act=act) > 0


@pytest.mark.parametrize('loss', LOSSES[:1] + LOSSES[4:])
def test_a_constant_added_to_a_row_changes_nothing(loss):
    student, teacher = logits(4, 9, seed=1), logits(4, 9, seed=2)
    shift = logits(4, 1, seed=3)
    assert loss(student + shift, teacher - shift).item() == pytest.approx(
        loss(student, teacher).item(), rel=1e-12
    )


@pytest.mark.parametrize('loss', LOSSES)
def test_the_mean_of_rows(loss):
    student, teacher = logits(6, 9, seed=1), logits(6, 9, seed=2)
    rows = torch.stack([loss(s[None], t[None]) for s, t in zip(student, teacher, strict=True)])
    assert loss(student, teacher).item() == pytest.approx(rows.mean().item(), rel=1e-12)
    assert loss(student.view(2, 3, 9), teacher.view(2, 3, 9)).item() == pytest.approx(
        rows.mean().item(), rel=1e-12
    )


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_compared_in_float32(loss, dtype):
    student = logits(4, 9, seed=1).to(dtype).requires_grad_()
    teacher = logits(4, 9, seed=2).to(dtype)
    value = loss(student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert student.grad.dtype == dtype
    exact = loss(student.detach().double(), teacher.double())
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)


def test_autocast_does_not_reach_into_the_loss():
    student, teacher = logits(4, 9, seed=1).float(), logits(4, 9, seed=2).float()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = js(student, teacher)
    assert value.equal(js(student, teacher))


def test_certain_rows_in_half_precision_stay_finite():
    student = torch.tensor([[60.0, -60, 0]], dtype=torch.float16, requires_grad=True)
    value = js(student, torch.tensor([[-60.0, 60, 0]], dtype=torch.float16))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


@pytest.mark.parametrize(
    ('settings', 'function'),
    [
        ({}, js),
        ({'mode': 'js', 'eps': 1e-6}, lambda s, t: js(s, t, eps=1e-6)),
        ({'mode': 'js_legacy'}, js_legacy),
        ({'mode': 'ce', 'loss_weight': 2.0}, lambda s, t: 2 * ce(s, t)),
        ({'mode': 'kl'}, lambda s, t: kl(s, t, 4.0)),
        ({'mode': 'kl', 'temperature': 2.0}, lambda s, t: kl(s, t, 2.0)),
        ({'act': 'sigmoid'}, lambda s, t: js(s, t, act='sigmoid')),
    ],
)
def test_the_module_is_the_function(settings, function):
    student, teacher = logits(4, 9, seed=1, scale=12), logits(4, 9, seed=2, scale=12)
    module = SSLDLoss(**settings)
    assert module(student, teacher).equal(function(student, teacher))
    assert settings.get('mode', 'js') in repr(module)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'mode': 'jss'}, 'did you mean "js"'),
        ({'mode': 'ce', 'eps': 1e-6}, 'no setting eps'),
        ({'mode': 'js_legacy', 'eps': 1e-6}, 'no setting eps'),
        ({'mode': 'js', 'temperature': 2.0}, 'no setting temperature'),
        ({'mode': 'kl', 'act': 'sigmoid'}, 'no setting act'),
        ({'mode': 'ce', 'sum_across_class_dim': True}, 'no setting sum_across_class_dim'),
        ({'act': 'relu'}, 'not one of'),
        ({'eps': 0.0}, 'positive'),
        ({'mode': 'kl', 'temperature': -1.0}, 'positive'),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        SSLDLoss(**settings)


@pytest.mark.parametrize('loss', LOSSES)
def test_other_class_counts_are_refused(loss):
    with pytest.raises(UserError, match='num_classes'):
        loss(logits(4, 9), logits(4, 10))
