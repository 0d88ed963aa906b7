"""Standardised logits: what the loss does not see, its gradient, constant rows, maps, two classes, mixed labels."""

from __future__ import annotations

import pytest
import torch

from vfd.errors import UserError
from vfd.losses import DKDLoss, KLDivLogitLoss, kl, standardize_logits

LABEL = torch.tensor([0, 5, 2, 2])


def logits(seed: int, *shape: int) -> torch.Tensor:
    return 3 * torch.randn(*(shape or (4, 6)), generator=torch.Generator().manual_seed(seed)).double()


def both(**settings):
    """KD and DKD as functions of both logits."""
    dkd = DKDLoss(**settings)
    return {'kd': KLDivLogitLoss(**settings), 'dkd': lambda student, teacher: dkd(student, teacher, LABEL)}


NAMES = pytest.mark.parametrize('name', ['kd', 'dkd'])


def test_z_scores_have_mean_0_and_deviation_1():
    z = standardize_logits(logits(0, 4, 6, 2), dim=1)
    torch.testing.assert_close(z.mean(1), torch.zeros(4, 2).double())
    torch.testing.assert_close(z.std(1), torch.ones(4, 2).double(), rtol=0, atol=1e-6)
    population = standardize_logits(logits(0), unbiased=False)
    torch.testing.assert_close(population.square().mean(1), torch.ones(4).double(), rtol=0, atol=1e-6)


@NAMES
@pytest.mark.parametrize('unbiased', [True, False])
def test_an_affine_map_of_the_logits_changes_nothing(name, unbiased):
    loss = both(unbiased=unbiased)[name]
    student, teacher = logits(0), logits(1)
    scale, offset = (
        torch.tensor([[0.01], [1.0], [7.0], [300.0]]),
        torch.tensor([[5.0], [-3.0], [0.0], [100.0]]),
    )
    torch.testing.assert_close(
        loss(scale * student + offset, teacher), loss(student, teacher), rtol=2e-5, atol=0
    )
    torch.testing.assert_close(
        loss(student, scale * teacher + offset), loss(student, teacher), rtol=2e-5, atol=0
    )
    assert loss(student, 3 * student - 1).item() == pytest.approx(0, abs=1e-9)
    assert loss(student, teacher) > 0.1
    assert not torch.allclose(loss(-student, teacher), loss(student, teacher))


@NAMES
def test_the_gradient_sums_to_0_and_is_orthogonal_to_the_logits(name):
    student = logits(0).requires_grad_()
    both(temperature=3.0)[name](student, logits(1)).backward()
    assert student.grad.abs().sum() > 0.01
    assert student.grad.sum(1).abs().max() < 1e-12
    assert (student.grad * student).sum(1).abs().max() < 1e-6  # up to eps


@NAMES
def test_gradients_are_those_of_the_formula_and_reach_the_student_alone(name):
    loss, teacher = both(temperature=2.0)[name], logits(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, teacher), logits(0).requires_grad_())
    loss(logits(0).requires_grad_(), teacher).backward()
    assert teacher.grad is None


@NAMES
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('value', [0.0, 0.1, -7.3, 1e4])
@pytest.mark.parametrize('classes', [6, 1000])
def test_constant_rows_give_a_finite_loss_and_no_gradient(name, dtype, value, classes):
    student, teacher = logits(0, 4, classes).to(dtype), logits(1, 4, classes).to(dtype)
    student[1], teacher[2] = value, value
    student.requires_grad_()
    loss = both()[name](student, teacher)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()
    assert not student.grad[1].any() and student.grad[[0, 2, 3]].abs().sum(1).all()


@NAMES
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, dtype):
    student, teacher = ((4000 * logits(seed)).to(dtype) for seed in (0, 1))
    assert student.abs().max() > 1e4  # whose squares overflow float16
    loss = both()[name]
    value = loss(student.requires_grad_(), teacher)
    value.backward()
    assert value.dtype == torch.float32 and student.grad.isfinite().all()
    torch.testing.assert_close(value, loss(student.detach().float(), teacher.float()))


def test_every_location_of_a_map_is_a_sample():
    student, teacher = logits(0, 2, 5, 3, 4), logits(1, 2, 5, 3, 4)
    rows = [z.movedim(1, -1).reshape(-1, 5) for z in (student, teacher)]
    for settings in ({}, {'standardize': False}, {'unbiased': False, 'temperature': 4.0}):
        loss = KLDivLogitLoss(**settings)
        torch.testing.assert_close(loss(student, teacher), loss(*rows))
    torch.testing.assert_close(KLDivLogitLoss(dim=-1)(*rows), KLDivLogitLoss()(*rows))


def test_without_standardisation_the_loss_is_hintons():
    student, teacher = logits(0).float(), logits(1).float()
    assert KLDivLogitLoss(4.0, standardize=False)(student, teacher).equal(kl(student, teacher, 4.0))


def test_decoupled_parts_row_by_row():
    """With the labelled class cut out, instead of shifted away."""
    student, teacher = logits(0), logits(1)
    total = 0.0
    for s, t, y in zip(student / 2, teacher / 2, LABEL.tolist(), strict=True):
        rest = [k for k in range(6) if k != y]
        p_s, p_t = s.softmax(0), t.softmax(0)
        labelled = torch.stack(
            [p_t[y] * (p_t[y] / p_s[y]).log(), (1 - p_t[y]) * ((1 - p_t[y]) / (1 - p_s[y])).log()]
        )
        q_s, q_t = s[rest].softmax(0), t[rest].softmax(0)
        total += 4 * (1.5 * labelled.sum() + 7 * (q_t * (q_t / q_s).log()).sum()) / 4
    loss = DKDLoss(2.0, alpha=1.5, beta=7.0, standardize=False)
    torch.testing.assert_close(loss(student, teacher, LABEL), total)
    scores = torch.full((4, 6), 0.1).scatter(1, LABEL[:, None], 0.5)
    assert loss(student, teacher, scores).equal(loss(student, teacher, LABEL))


def test_decoupled_parts_of_certain_teachers_and_students_are_finite():
    sure = torch.zeros(2, 6).scatter(1, torch.tensor([[0], [3]]), 500.0).requires_grad_()
    loss = DKDLoss(1.0, standardize=False)(sure, sure.detach().flip(0), torch.tensor([0, 3]))
    loss.backward()
    assert loss.isfinite() and loss > 100 and sure.grad.isfinite().all()


def test_two_classes_are_refused_unless_that_is_wanted():
    pair = logits(0, 4, 2), logits(1, 4, 2)
    with pytest.raises(UserError, match=r'2 classes.*standardize=False'):
        KLDivLogitLoss()(*pair)
    with pytest.warns(UserWarning, match='2 classes'):
        assert KLDivLogitLoss(allow_binary=True)(*pair).isfinite()
    with pytest.raises(UserError, match='1 classes'):
        KLDivLogitLoss(allow_binary=True)(logits(0, 4, 1), logits(1, 4, 1))
    assert KLDivLogitLoss(standardize=False)(*pair) > 0


@pytest.mark.parametrize('loss', [KLDivLogitLoss, DKDLoss])
@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(temperature=0.0), 'temperature=0.0'),
        (dict(eps=0.0), 'eps=0.0'),
        (dict(standardize=False, unbiased=False), 'standardize=True'),
        (dict(standardize=False, eps=1e-5), 'standardize=True'),
    ],
)
def test_mistakes_are_named(loss, settings, message):
    with pytest.raises(UserError, match=message):
        loss(**settings)
