"""LayerDecay: which layer a parameter belongs to, its groups in the optimizer, what is refused."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from vfd.engine.layer_decay import layer_id
from vfd.errors import UserError

DEPTH, DECAY, LR, WEIGHT_DECAY = 3, 0.5, 0.1, 0.05
LAST = DEPTH + 1


def vit(**options) -> nn.Module:
    return timm.create_model(
        'vit_tiny_patch16_224', img_size=32, embed_dim=12, num_heads=2, depth=DEPTH, num_classes=5, **options
    )


class Wrapped(nn.Module):
    """A network under a wrapper's name, with a new part beside it."""

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self.add_module(name, network)
        self.adapter = nn.Conv2d(2, 2, 3)


def wrapper(model: nn.Module, optimizer: dict | None = None, **options):
    options.setdefault('layer_decay', DECAY)
    optimizer = optimizer or dict(type='AdamW', lr=LR, weight_decay=WEIGHT_DECAY)
    return build_optim_wrapper(
        model,
        dict(type='OptimWrapper', constructor='vfd.LayerDecay', paramwise_cfg=options, optimizer=optimizer),
    )


def learned(model: nn.Module, **options) -> dict[str, tuple[float, float]]:
    """Learning-rate factor and weight decay by name; every parameter is in exactly one group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = wrapper(model, **options).optimizer.param_groups
    assert sum(len(group['params']) for group in groups) == len({id(p) for g in groups for p in g['params']})
    return {
        names[id(parameter)]: (group['lr'] / LR, group['weight_decay'])
        for group in groups
        for parameter in group['params']
    }


@pytest.mark.parametrize(
    ('name', 'layer'),
    [
        ('cls_token', 0),
        ('pos_embed', 0),
        ('patch_embed.proj.weight', 0),
        ('patch_embed.norm.bias', 0),
        ('blocks.0.norm1.weight', 1),
        ('blocks.2.mlp.fc2.bias', 3),
        ('norm.weight', LAST),
        ('fc_norm.weight', LAST),
        ('head.weight', LAST),
        ('head_dist.bias', LAST),
        ('dist_token', LAST),
        ('decoder_blocks.0.norm1.weight', LAST),
        ('blocks.1.residual.conv1.weight', LAST),
        ('fpn1.0.weight', LAST),
        ('rpn_head.conv.weight', LAST),
    ],
)
@pytest.mark.parametrize(
    'before',
    ['', 'module.', 'student.', 'student.model.', 'backbone.net.', 'student.backbone.net.', '0.backbone.'],
)
def test_the_layer_of_a_name(name, layer, before):
    assert layer_id(before + name, DEPTH) == layer


@pytest.mark.parametrize('name', [None, 'student', 'backbone'])
def test_every_parameter_learns_at_the_rate_of_its_layer(name):
    network = vit()
    model = network if name is None else Wrapped(name, network)
    ours = learned(model)
    before = '' if name is None else f'{name}.'
    assert set(ours) == {name for name, _ in model.named_parameters()}
    assert ours[f'{before}cls_token'] == ours[f'{before}pos_embed'] == (pytest.approx(DECAY**LAST), 0)
    assert ours[f'{before}patch_embed.proj.weight'] == (pytest.approx(DECAY**LAST), WEIGHT_DECAY)
    for i in range(DEPTH):
        weight, bias = (f'{before}blocks.{i}.attn.qkv.{leaf}' for leaf in ('weight', 'bias'))
        assert ours[weight] == (pytest.approx(DECAY ** (DEPTH - i)), WEIGHT_DECAY)
        assert ours[bias] == (pytest.approx(DECAY ** (DEPTH - i)), 0)
    assert ours[f'{before}norm.weight'] == (1, 0) and ours[f'{before}head.weight'] == (1, WEIGHT_DECAY)
    if name:
        assert ours['adapter.weight'] == (1, WEIGHT_DECAY) and ours['adapter.bias'] == (1, 0)


def test_one_group_for_each_rate_and_decay():
    groups = wrapper(vit()).optimizer.param_groups
    kinds = [(group['lr'], group['weight_decay']) for group in groups]
    assert len(set(kinds)) == len(kinds) == 2 * (DEPTH + 2)
    assert [lr for lr, _ in kinds] == sorted(lr for lr, _ in kinds)


def test_what_is_not_decayed_can_be_chosen():
    ours = learned(vit(), no_decay=['norm', 'pos_embed'])
    assert ours['pos_embed'][1] == ours['norm.bias'][1] == ours['blocks.0.norm1.weight'][1] == 0
    assert ours['cls_token'][1] == ours['head.bias'][1] == ours['blocks.0.attn.qkv.bias'][1] == WEIGHT_DECAY
    assert all(decay == WEIGHT_DECAY for _, decay in learned(vit(), no_decay=[]).values())
    further = learned(vit(), layer_decay=1.0, no_decay=['bias', 'pos_embed', 'cls_token'])
    assert all(factor == 1 for factor, _ in further.values())
    assert further['norm.weight'][1] == WEIGHT_DECAY and further['norm.bias'][1] == 0


def test_frozen_parameters_stay_out():
    network = vit()
    network.patch_embed.requires_grad_(False)
    network.pos_embed.requires_grad_(False)
    assert {name for name in learned(network) if name.startswith(('patch_embed', 'pos_embed'))} == set()


def test_a_step_moves_early_layers_less():
    network = vit().train()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    wrapped = wrapper(network, optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0))
    wrapped.update_params(network(torch.randn(2, 3, 32, 32)).square().mean())
    moved = {name: (value - before[name]).abs().max().item() for name, value in network.named_parameters()}
    # The first step of Adam has the size of the learning rate.
    for i in range(DEPTH):
        size = 1e-3 * DECAY ** (DEPTH - i)
        assert moved[f'blocks.{i}.attn.proj.weight'] == pytest.approx(size, rel=1e-2)


def test_its_state_is_plain():
    state = wrapper(vit()).state_dict()
    json.dumps(state['param_groups'])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'layer_decay': None}, 'number in'),
        ({'layer_decay': 1.5}, 'number in'),
        ({'layer_decay': 0}, 'number in'),
        ({'no_decay': ['pos_embd']}, 'did you mean "pos_embed"'),
        ({'no_decay': ['1d', 'rel_pos']}, 'no trainable tensor'),
        ({'no_decay': 'bias'}, 'not a list'),
        ({'layer_decay_rate': 0.75}, 'did you mean "layer_decay"'),
        ({'custom_keys': {}}, 'unknown "custom_keys"'),
    ],
)
def test_mistakes_in_the_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        wrapper(vit(), **options)


def test_a_missing_rate_and_a_network_without_blocks_are_refused():
    with pytest.raises(UserError, match='no `lr`'):
        wrapper(vit(), optimizer=dict(type='AdamW'))
    with pytest.raises(UserError, match=r'blocks\.0.*has: conv1, '):
        wrapper(timm.create_model('test_resnet'))
