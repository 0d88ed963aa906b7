"""Losses between class maps, and between token relations: values, minima, gradients, mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vfd.errors import UserError
from vfd.losses import ChannelWiseLoss, qkv_relation
from vfd.losses.channel_wise import channel_wise, pixel_wise_kl


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


@pytest.fixture
def maps():
    return drawn(2, 3, 4, 5), drawn(2, 3, 4, 5, seed=1)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax along the last axis."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_values(maps, temperature):
    student, teacher = (each.numpy() / temperature for each in maps)
    ours, theirs = (probabilities(each.reshape(2, 3, 20)) for each in (student, teacher))
    cwd = temperature**2 * -(theirs * np.log(ours)).sum() / (2 * 3)
    assert float(channel_wise(*maps, temperature)) == pytest.approx(cwd, rel=1e-12)
    ours, theirs = (probabilities(each.transpose(0, 2, 3, 1)) for each in (student, teacher))
    kl = temperature**2 * (theirs * (np.log(theirs) - np.log(ours))).mean()
    assert float(pixel_wise_kl(*maps, temperature)) == pytest.approx(kl, rel=1e-12)
    loss = ChannelWiseLoss('kl', temperature, loss_weight=10.0)
    assert float(loss(*maps)) == pytest.approx(10 * kl, rel=1e-12)


def test_the_minimum_is_the_entropy_of_the_teacher(maps):
    student, teacher = maps
    entropy = torch.distributions.Categorical(logits=teacher.flatten(2)).entropy().mean()
    torch.testing.assert_close(channel_wise(teacher, teacher), entropy)
    assert entropy > 0.1 and channel_wise(student, teacher) > entropy
    at_minimum = teacher.clone().requires_grad_()
    channel_wise(at_minimum, teacher).backward()
    torch.testing.assert_close(at_minimum.grad, torch.zeros_like(teacher), rtol=0, atol=1e-15)
    assert float(pixel_wise_kl(teacher, teacher)) == pytest.approx(0.0, abs=1e-15)


def test_each_loss_ignores_what_its_softmax_ignores(maps):
    student, teacher = maps
    shifted = student + drawn(2, 3, 1, 1, seed=2)  # a constant a channel
    torch.testing.assert_close(channel_wise(shifted, teacher), channel_wise(student, teacher))
    shifted = student + drawn(2, 1, 4, 5, seed=2)  # a constant a position
    torch.testing.assert_close(pixel_wise_kl(shifted, teacher), pixel_wise_kl(student, teacher))


@pytest.mark.parametrize('mode', ['cwd', 'kl'])
@pytest.mark.parametrize('align', [None, (3, 5)])
def test_gradients(mode, align):
    torch.manual_seed(0)
    loss = ChannelWiseLoss(mode, temperature=2.0, align=align).double()
    student, teacher = drawn(2, 3, 3, 2).requires_grad_(), drawn(2, 5 if align else 3, 3, 2, seed=1)
    assert torch.autograd.gradcheck(lambda maps: loss(maps, teacher), student)
    teacher.requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    if align:
        assert loss.align.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('mode', ['cwd', 'kl'])
def test_half_precision_is_computed_in_float32(mode, maps):
    student, teacher = (1e3 * each for each in maps)
    loss = ChannelWiseLoss(mode, align=(3, 3))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(student.bfloat16().requires_grad_(), teacher.float())
    assert value.dtype == torch.float32 and torch.isfinite(value)


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        (dict(mode='cdw'), 'did you mean "cwd"'),
        (dict(temperature=0.0), 'greater than 0'),
    ],
)
def test_wrong_settings(settings, text):
    with pytest.raises(UserError, match=text):
        ChannelWiseLoss(**settings)


def test_maps_that_do_not_fit():
    loss = ChannelWiseLoss()
    with pytest.raises(UserError, match=r'align=\(3, 5\)'):
        loss(drawn(2, 3, 4, 4), drawn(2, 5, 4, 4))
    with pytest.raises(UserError, match='same input size'):
        loss(drawn(2, 3, 4, 4), drawn(2, 3, 8, 8))
    with pytest.raises(UserError, match='the student has 4'):
        ChannelWiseLoss(align=(3, 5)).channels(4)


# ---------------------------------------------------------------------------------------------------- relations


def qkv(width: int, seed: int, layers: int = 2) -> list[list[torch.Tensor]]:
    return [[drawn(2, 6, width, seed=seed + 3 * i + j) for j in range(3)] for i in range(layers)]


def test_relations_are_equal_for_equal_tokens_in_another_basis():
    teacher = qkv(8, 10)
    rotation, _ = torch.linalg.qr(drawn(4, 4, seed=5))
    blocks = torch.block_diag(rotation, rotation)  # the same rotation in each of two relation heads
    student = [[part @ blocks for part in layer] for layer in teacher]
    assert float(qkv_relation(student, teacher, heads=2)) == pytest.approx(0.0, abs=1e-14)
    assert float(qkv_relation(qkv(12, 20), teacher, heads=4)) > 0.1


def test_relations_are_averaged_over_layers_and_pairs():
    student, teacher = qkv(6, 10, layers=1), qkv(4, 20, layers=1)
    (ours,), (theirs,) = student, teacher
    total = 0.0
    for a in range(3):
        for b in range(3):
            logits = [
                (layer[a] @ layer[b].transpose(1, 2)) / layer[a].shape[-1] ** 0.5 for layer in (ours, theirs)
            ]
            divergence = F.kl_div(
                logits[0].log_softmax(-1), logits[1].log_softmax(-1), log_target=True, reduction='sum'
            )
            total += float(divergence) / (2 * 6) / 9
    assert float(qkv_relation(student, teacher, heads=1)) == pytest.approx(total, rel=1e-12)


def test_relations_that_do_not_fit():
    with pytest.raises(UserError, match='not divisible'):
        qkv_relation(qkv(6, 0), qkv(8, 1), heads=4)
    with pytest.raises(UserError, match='1 layers'):
        qkv_relation(qkv(8, 0, layers=1), qkv(8, 1), heads=4)
    fewer = [[part[:, 1:] for part in layer] for layer in qkv(8, 1)]
    with pytest.raises(UserError, match='same tokens'):
        qkv_relation(qkv(8, 0), fewer, heads=4)
