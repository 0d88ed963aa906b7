"""Distances of feature maps: values, gradients, mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vfd.errors import UserError
from vfd.losses import FeatureDistanceLoss, feature_distance


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) * 2 for _ in range(2)]


def reference(student: np.ndarray, teacher: np.ndarray, mode: str, act: str | None) -> float:
    if act == 'sigmoid':
        student, teacher = (1 / (1 + np.exp(-z)) for z in (student, teacher))
    elif act == 'softmax':
        student, teacher = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (student, teacher))
    gap = np.abs(student - teacher)
    per_value = {'l2': gap**2, 'l1': gap, 'smooth_l1': np.where(gap < 1, gap**2 / 2, gap - 0.5)}
    return float(per_value[mode].mean())


@pytest.mark.parametrize('mode', ['l2', 'l1', 'smooth_l1'])
@pytest.mark.parametrize('act', [None, 'softmax', 'sigmoid'])
def test_values_and_gradients(maps, mode, act):
    student, teacher = maps
    value = FeatureDistanceLoss(mode, act, loss_weight=0.5)(student, teacher)
    assert value.item() == pytest.approx(
        0.5 * reference(student.numpy(), teacher.numpy(), mode, act), rel=1e-12
    )
    student = student.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: feature_distance(s, teacher, mode, act), [student])


def test_the_teacher_gets_no_gradient_and_halves_become_float32(maps):
    student, teacher = (z.half().requires_grad_() for z in maps)
    value = feature_distance(student, teacher)
    value.backward()
    assert value.dtype == torch.float32 and teacher.grad is None and student.grad is not None


def test_mistakes_are_named(maps):
    with pytest.raises(UserError, match='did you mean "l2"'):
        FeatureDistanceLoss('l22')
    with pytest.raises(UserError, match='act='):
        FeatureDistanceLoss(act='tanh')
    with pytest.raises(UserError, match='one shape'):
        feature_distance(maps[0], maps[1][:, :2])
