"""The warm-up cosine in closed form, and learning-rate multipliers by layer."""

from __future__ import annotations

import logging
import math

import pytest
import timm
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from vfd.engine.optim import LayerwiseLrMultiplier
from vfd.engine.schedulers import WarmupCosineByIter, warmup_cosine
from vfd.errors import UserError
from vfd.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, PARAM_SCHEDULERS


def optimizer(*lrs: float) -> torch.optim.SGD:
    return torch.optim.SGD([{'params': [nn.Parameter(torch.zeros(1))], 'lr': lr} for lr in lrs], lr=1.0)


def values(optim, scheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(optim.param_groups[0]['lr'])
        optim.step()
        scheduler.step()
    return found


def published(epochs: int, steps: int, lr: float, warmup: float) -> list[float]:
    """The sequence as the paper's recipe states it."""
    warmup = min(warmup, epochs)
    rise = round(warmup * steps)
    rising = [lr * i / rise for i in range(rise)]
    falling = [
        lr / 2 * (1 + math.cos(math.pi * (i - rise) / ((epochs - warmup) * steps)))
        for i in range(rise, epochs * steps)
    ]
    return rising + falling


# ------------------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize(
    ('epochs', 'steps', 'lr', 'warmup'),
    [
        (6, 5, 0.4, 2),
        (10, 3, 1.3, 5),
        (4, 4, 0.05, 0),
        (3, 7, 0.1, 0.5),  # round(3.5) = 4
        (5, 10, 2.0, 1.25),  # round(12.5) = 12
        (3, 4, 1.0, 3),
        (2, 6, 1.0, 9),  # longer than the training
    ],
)
def test_the_published_sequence(epochs, steps, lr, warmup):
    optim = optimizer(lr)
    scheduler = WarmupCosineByIter.build_iter_from_epoch(optim, warmup=warmup, end=epochs, epoch_length=steps)
    assert values(optim, scheduler, epochs * steps) == pytest.approx(
        published(epochs, steps, lr, warmup), abs=1e-12
    )


def test_the_first_iteration_has_rate_zero_and_the_last_is_near_it():
    sequence = [warmup_cosine(step, total=100, warmup=10) for step in range(101)]
    assert sequence[0] == 0 and sequence[10] == 1 and sequence[100] == 0
    assert sequence[:11] == sorted(sequence[:11]) and sequence[10:] == sorted(sequence[10:], reverse=True)
    assert 0 < sequence[99] < 1e-3


def test_every_group_keeps_its_own_base():
    optim = optimizer(0.4, 0.04)
    scheduler = WarmupCosineByIter(optim, warmup=2, end=10)
    for _ in range(9):
        first, second = (group['lr'] for group in optim.param_groups)
        assert second == pytest.approx(first / 10, abs=1e-15)
        optim.step()
        scheduler.step()


def test_it_works_on_an_optim_wrapper_and_begins_later():
    optim = optimizer(1.0)
    scheduler = WarmupCosineByIter(OptimWrapper(optim), warmup=2, begin=3, end=9)
    found = values(optim, scheduler, 9)
    assert found[:3] == [1.0] * 3  # untouched until it begins
    assert found[3:] == pytest.approx([warmup_cosine(step, 6, 2) for step in range(6)], abs=1e-12)


@pytest.mark.parametrize('stop', [1, 3, 17])
def test_a_resumed_run_continues_exactly(stop):
    settings = {'warmup': 5, 'end': 30}
    optim = optimizer(0.37)
    whole = values(optim, WarmupCosineByIter(optim, **settings), 30)
    first = optimizer(0.37)
    scheduler = WarmupCosineByIter(first, **settings)
    begun = values(first, scheduler, stop)
    saved = {'scheduler': scheduler.state_dict(), 'optimizer': first.state_dict()}

    second = optimizer(0.37)
    scheduler = WarmupCosineByIter(second, **settings)
    second.load_state_dict(saved['optimizer'])
    scheduler.load_state_dict(saved['scheduler'])
    assert begun + values(second, scheduler, 30 - stop) == whole


def test_mmengine_builds_it_from_epochs():
    scheduler = PARAM_SCHEDULERS.build(
        {
            'type': 'vfd.WarmupCosineByIter',
            'warmup': 5,
            'end': 20,
            'by_epoch': True,
            'convert_to_iter_based': True,
        },
        default_args={'optimizer': optimizer(0.1), 'epoch_length': 7},
    )
    assert (scheduler.warmup, scheduler.end, scheduler.by_epoch) == (35, 140, False)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'by_epoch': True, 'end': 5}, 'convert_to_iter_based=True'),
        ({}, 'needs `end`'),
        ({'warmup': -1, 'end': 5}, 'not be negative'),
    ],
)
def test_schedule_mistakes_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        WarmupCosineByIter(optimizer(0.1), **settings)


# ------------------------------------------------------------------------------------------------- multipliers

FIVE = [0.1, 0.2, 0.3, 0.4, 0.5]


def rates(model: nn.Module, lr_mult_list=FIVE, **options) -> dict[str, float]:
    """The learning rate of every parameter, for a base rate of 1."""
    constructor = LayerwiseLrMultiplier(
        {'optimizer': {'type': 'SGD', 'lr': 1.0, 'weight_decay': 1e-4}},
        {'lr_mult_list': lr_mult_list, **options},
    )
    wrapper = constructor(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)]: group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']}
    assert set(found) == set(names.values())
    return found


def check(found: dict[str, float], expected: dict[str, float]) -> None:
    """``expected``: beginning of a name -> rate; every name has to begin with one of them."""
    for name, rate in found.items():
        fitting = [begin for begin in expected if name.startswith(begin)]
        assert fitting, f'{name} has rate {rate}, which no expectation covers'
        assert rate == pytest.approx(expected[max(fitting, key=len)]), name


def on_meta(name: str) -> nn.Module:
    with torch.device('meta'):
        return timm.create_model(name)


RESNET = {'layer1.': 0.2, 'layer2.': 0.3, 'layer3.': 0.4, 'layer4.': 0.5}


def test_resnet_vd_of_timm():
    check(rates(on_meta('resnet18d')), {'conv1.': 0.1, 'bn1.': 0.1, 'fc.': 1.0, **RESNET})


class Wrapped(nn.Module):
    """Stands for a distiller: the student under its name."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student


def test_a_student_inside_a_distiller():
    with torch.device('meta'):
        student = MODELS.build({'type': 'mmpretrain.TimmClassifier', 'model_name': 'resnet18d'})
    expected = {'conv1.': 0.1, 'bn1.': 0.1, 'fc.': 1.0, **RESNET}
    check(rates(Wrapped(student)), {f'student.model.{begin}': rate for begin, rate in expected.items()})


def test_resnet_vd_of_mmpretrain():
    backbone = {
        'type': 'ResNetV1d',
        'depth': 50,
        'stem_channels': 8,
        'base_channels': 8,
        '_scope_': 'mmpretrain',
    }
    head = {'type': 'LinearClsHead', 'num_classes': 3, 'in_channels': 256, '_scope_': 'mmpretrain'}
    model = MODELS.build({'type': 'mmpretrain.ImageClassifier', 'backbone': backbone, 'head': head})
    expected = {f'backbone.{begin}': rate for begin, rate in {'stem.': 0.1, **RESNET}.items()}
    check(rates(model), {**expected, 'head.': 1.0})


def test_mobilenet_v3_of_timm_has_three_blocks_a_value():
    found = rates(on_meta('mobilenetv3_large_100'))
    blocks = list(
        dict.fromkeys('.'.join(name.split('.')[:3]) for name in found if name.startswith('blocks.'))
    )
    assert len(blocks) == 16  # fifteen, and the convolution that timm counts as the sixteenth
    expected = {f'{block}.': FIVE[min(index // 3, 4)] for index, block in enumerate(blocks)}
    check(found, {'conv_stem.': 0.1, 'bn1.': 0.1, 'conv_head.': 1.0, 'classifier.': 1.0, **expected})


def test_mobilenet_v3_of_mmpretrain():
    backbone = {'type': 'MobileNetV3', 'arch': 'large', '_scope_': 'mmpretrain'}
    with torch.device('meta'):
        model = MODELS.build({'type': 'mmpretrain.ImageClassifier', 'backbone': backbone})
    expected = {f'backbone.layer{layer}.': FIVE[min((layer - 1) // 3, 4)] for layer in range(1, 17)}
    check(rates(model), {'backbone.layer0.': 0.1, **expected})


def test_other_options_of_mmengine_still_apply():
    model = on_meta('resnet18d')
    constructor = LayerwiseLrMultiplier(
        {'optimizer': {'type': 'SGD', 'lr': 1.0, 'weight_decay': 0.1}},
        {'lr_mult_list': FIVE, 'norm_decay_mult': 0.0, 'custom_keys': {'layer1': {'lr_mult': 2.0}}},
    )
    groups = constructor(model).optimizer.param_groups
    by_id = {id(group['params'][0]): group for group in groups}
    assert by_id[id(model.bn1.weight)]['weight_decay'] == 0
    assert by_id[id(model.layer2[0].conv1.weight)]['weight_decay'] == 0.1
    assert by_id[id(model.layer1[0].conv1.weight)]['lr'] == pytest.approx(2.0 * 0.2)


def test_the_log_says_who_learns_how_fast(caplog):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance('multipliers', logger_name='multipliers')
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO):
        rates(on_meta('resnet18d'))
    table = next(record.getMessage() for record in caplog.records if 'multipliers:' in record.getMessage())
    rows = {line.split()[0]: line for line in table.splitlines()[2:]}
    assert 'conv1, bn1' in rows['0.1'] and 'layer4' in rows['0.5'] and 'fc' in rows['1']


@pytest.mark.parametrize('values', [None, [0.1, 0.2], [0.1] * 4 + [-1], 0.1])
def test_a_list_of_five_is_needed(values):
    with pytest.raises(UserError, match='five values'):
        rates(on_meta('resnet18d'), values)


def test_another_family_is_refused_with_what_to_write():
    with pytest.raises(UserError, match=r'(?s)has: patch_embed, .*custom_keys'):
        rates(nn.ModuleDict({'patch_embed': nn.Linear(2, 2), 'blocks': nn.Linear(2, 2)}))


def test_it_is_registered():
    assert OPTIM_WRAPPER_CONSTRUCTORS.get('vfd.LayerwiseLrMultiplier') is LayerwiseLrMultiplier
