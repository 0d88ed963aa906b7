"""NKD: the formula, its limits, what it refuses."""

from __future__ import annotations

import pytest
import torch

from vfd.errors import UserError
from vfd.losses import NKDLoss


def logits(seed: int, rows: int = 4, classes: int = 6) -> torch.Tensor:
    return 3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)).double()


def plain(student, teacher, label, temperature, alpha):
    """Row by row, with the label's class cut out."""
    total = 0.0
    for s, t, g in zip(student, teacher, label.tolist(), strict=True):
        others = [c for c in range(len(s)) if c != g]
        distill = -((t[others] / temperature).softmax(0) * (s[others] / temperature).log_softmax(0)).sum()
        total += -t.softmax(0)[g] * s.log_softmax(0)[g] + alpha * temperature**2 * distill
    return total / len(student)


@pytest.mark.parametrize(('temperature', 'alpha'), [(1.0, 1.0), (2.0, 1.5), (40.0, 0.1), (1.0, 0.0)])
def test_values(temperature, alpha):
    student, teacher, label = logits(0), logits(1), torch.tensor([0, 5, 2, 2])
    ours = NKDLoss(temperature, alpha)(student, teacher, label)
    assert ours.item() == pytest.approx(plain(student, teacher, label, temperature, alpha).item(), rel=1e-12)


def test_scores_of_mixed_images_stand_for_their_largest_class():
    label = torch.tensor([0, 5, 2, 2])
    scores = torch.full((4, 6), 0.1).scatter(1, label[:, None], 0.5)
    assert NKDLoss()(logits(0), logits(1), scores).equal(NKDLoss()(logits(0), logits(1), label))


def test_gradients_reach_the_student_alone():
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    label = torch.tensor([0, 5, 2, 2])
    NKDLoss(2.0)(student, teacher, label).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    assert torch.autograd.gradcheck(lambda s: NKDLoss(2.0)(s, teacher.detach(), label), student)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_give_numbers(dtype):
    student = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]]).to(dtype).requires_grad_()
    loss = NKDLoss()(student, student.detach().flip(0), torch.tensor([0, 2]))
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and student.grad.isfinite().all()


def test_two_classes_leave_the_first_term():
    student, teacher = logits(0, classes=2), logits(1, classes=2)
    label = torch.tensor([0, 1, 1, 0])
    assert NKDLoss(alpha=5.0)(student, teacher, label).item() == pytest.approx(
        NKDLoss(alpha=0.0)(student, teacher, label).item(), rel=1e-12
    )


@pytest.mark.parametrize('temperature', [0.0, -1.0])
def test_the_temperature_is_positive(temperature):
    with pytest.raises(UserError, match='positive'):
        NKDLoss(temperature)
