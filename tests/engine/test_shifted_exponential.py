"""The schedule of PH-Reg's released code, written out, resumed, and without a step now and then."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from vfd.engine.schedulers_exponential import ShiftedExponentialByIter
from vfd.errors import UserError
from vfd.registry import PARAM_SCHEDULERS


def optimizer(*lrs: float) -> torch.optim.SGD:
    return torch.optim.SGD([{'params': [nn.Parameter(torch.zeros(1))], 'lr': lr} for lr in lrs], lr=1.0)


def scheduled(optim, epochs: int, steps: int, ratio: float) -> ShiftedExponentialByIter:
    return ShiftedExponentialByIter.build_iter_from_epoch(
        optim, eta_min_ratio=ratio, end=epochs, epoch_length=steps
    )


def values(optim, scheduler, count: int, without: tuple[int, ...] = (), first: int = 0) -> list[float]:
    found = []
    for step in range(first, first + count):
        found.append(optim.param_groups[0]['lr'])
        if step not in without:
            optim.step()
        scheduler.step()
    return found


def published(
    epochs: int, steps: int, lr: float, end_lr: float, without: tuple[int, ...] = ()
) -> list[float]:
    """The loop: after each step of epoch e the rate is set."""
    rate, used = lr, []
    for epoch in range(epochs):
        for step in range(steps):
            used.append(rate)
            if epoch * steps + step not in without:
                rate = max(lr * (end_lr / lr) ** ((epoch + 1) / epochs), end_lr)
    return used


@pytest.mark.parametrize(
    ('epochs', 'steps', 'lr', 'end_lr'),
    [(100, 3, 1e-4, 5e-6), (100, 2, 3e-4, 1e-5), (1, 4, 1e-3, 1e-3), (7, 1, 0.5, 0.01)],
)
def test_the_published_sequence(epochs, steps, lr, end_lr):
    optim = optimizer(lr)
    found = values(optim, scheduled(optim, epochs, steps, end_lr / lr), epochs * steps)
    assert found == pytest.approx(published(epochs, steps, lr, end_lr), rel=1e-12)
    assert found[0] == lr and found[-1] >= end_lr * (1 - 1e-12)


@pytest.mark.parametrize('without', [(0,), (3,), (0, 1, 2, 3), (2, 3, 4, 9)])
def test_an_iteration_without_a_step_leaves_the_rate(without):
    optim = optimizer(1e-3)
    found = values(optim, scheduled(optim, 4, 3, 0.01), 12, without)
    assert found == pytest.approx(published(4, 3, 1e-3, 1e-5, without), rel=1e-12)


@pytest.mark.parametrize('stop', [1, 3, 4, 8])
@pytest.mark.parametrize('without', [(), (0,), (3,), (2, 4)])
def test_a_resumed_run_continues_exactly(stop, without):
    optim = optimizer(0.37)
    whole = values(optim, scheduled(optim, 4, 3, 0.02), 12, without)
    first = optimizer(0.37)
    scheduler = scheduled(first, 4, 3, 0.02)
    begun = values(first, scheduler, stop, without)
    saved = scheduler.state_dict(), first.state_dict()
    second = optimizer(0.37)
    scheduler = scheduled(second, 4, 3, 0.02)
    second.load_state_dict(saved[1])
    scheduler.load_state_dict(saved[0])
    assert begun + values(second, scheduler, 12 - stop, without, stop) == whole


def test_on_an_optim_wrapper_every_group_keeps_its_base():
    optim = optimizer(0.4, 0.04)
    wrapper = OptimWrapper(optim)
    scheduler = scheduled(wrapper, 3, 2, 0.1)
    for _ in range(6):
        wrapper.step()
        scheduler.step()
        assert optim.param_groups[1]['lr'] == pytest.approx(optim.param_groups[0]['lr'] / 10, rel=1e-12)
    assert optim.param_groups[0]['lr'] == pytest.approx(0.04, rel=1e-12)


def test_mmengine_builds_it_from_epochs_and_for_a_longer_schedule():
    config = {
        'type': 'vfd.ShiftedExponentialByIter',
        'eta_min_ratio': 0.05,
        'end': 100,
        'by_epoch': True,
        'convert_to_iter_based': True,
    }
    optim = optimizer(1e-4)
    scheduler = PARAM_SCHEDULERS.build(config, default_args={'optimizer': optim, 'epoch_length': 7})
    assert (scheduler.end, scheduler.by_epoch, scheduler.total) == (700, False, 100)
    found = values(optim, scheduler, 30 * 7)
    assert found[-1] == pytest.approx(1e-4 * 0.05**0.30, rel=1e-12)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'by_epoch': True, 'end': 5}, 'convert_to_iter_based=True'),
        ({}, 'needs `end`'),
        ({'end': 5, 'eta_min_ratio': 0.0}, 'must lie above 0'),
        ({'end': 5, 'eta_min_ratio': 1.5}, 'not above 1'),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        ShiftedExponentialByIter(optimizer(0.1), **{'eta_min_ratio': 0.1, **settings})
