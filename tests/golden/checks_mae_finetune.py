"""MAE, fine-tuning: the classifier's logits, the schedule, and learning rate and decay of every parameter."""

from __future__ import annotations

import json

import numpy as np
import timm
import torch
from golden_tools import close, equal, floats
from mmengine.optim import build_optim_wrapper
from torch import nn

from vfd.checkpoints import load_into
from vfd.engine.layer_decay import layer_id
from vfd.engine.schedulers import warmup_cosine

HEAD_WIDTH = 64


def check_finetune_forward(case) -> None:
    weights = {name: floats(value) for name, value in case.under('w/').items()}
    images = floats(case['imgs'])
    heads = json.loads(str(case.companion('mae_forward.npz')['cfg']))['num_heads']
    blocks = {name.split('.')[1] for name in weights if name.startswith('blocks.')}
    for key, pool, other in (('logits_gap', 'avg', 'norm.'), ('logits_cls', 'token', 'fc_norm.')):
        network = timm.create_model(
            'vit_tiny_patch16_224',
            img_size=images.shape[-1],
            patch_size=weights['patch_embed.proj.weight'].shape[-1],
            embed_dim=weights['cls_token'].shape[-1],
            depth=len(blocks),
            num_heads=heads,
            num_classes=len(weights['head.bias']),
            global_pool=pool,
        ).double()
        report = load_into(network, weights)
        assert all(name.startswith(other) for name in report.unused), report.unused
        close(network.eval()(images), case[key], name=key)


def check_schedule_layerdecay(case) -> None:
    for row in case['schedule']:
        warmup, epochs, lr, least, time, returned, group, half = row.tolist()
        factor = _factor(time, epochs, warmup, least / lr)
        np.testing.assert_allclose(
            [lr * factor, lr * factor, 0.5 * lr * factor], [returned, group, half], rtol=1e-9, atol=1e-18
        )
    for begin in {key.partition('_')[0] for key in case if key.endswith('_meta')}:
        _check_groups(case, begin)


def _factor(time: float, epochs: float, warmup: float, floor: float) -> float:
    """Ours counts iterations; an epoch of a great many makes any time one of them."""
    length = 2**32
    return warmup_cosine(round(time * length), epochs * length, warmup * length, floor)


def _check_groups(case, begin: str) -> None:
    meta = json.loads(str(case[f'{begin}_meta']))
    names = case[f'{begin}_names'].tolist()
    with torch.device('meta'):
        network = timm.create_model(
            'vit_base_patch16_224',
            embed_dim=HEAD_WIDTH,
            num_heads=1,
            depth=meta['depth'],
            global_pool='avg' if meta['global_pool'] else 'token',
        )
    parameters = dict(network.named_parameters())
    assert set(parameters) == set(names)
    scales, decays = _learned(network, parameters, meta['layer_decay'])
    close([scales[name] for name in names], case[f'{begin}_lr_scale'], name=begin)
    close([decays[name] for name in names], case[f'{begin}_wd'], name=begin)
    equal([layer_id(name, meta['depth']) for name in names], case[f'{begin}_layer_id'], begin)


def _learned(network: nn.Module, parameters: dict, layer_decay: float) -> tuple[dict, dict]:
    """Learning-rate factor and weight decay of every parameter in the optimizer."""
    wrapper = build_optim_wrapper(
        network,
        dict(
            type='OptimWrapper',
            constructor='vfd.LayerDecay',
            paramwise_cfg=dict(layer_decay=layer_decay),
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
        ),
    )
    names = {id(parameter): name for name, parameter in parameters.items()}
    scales, decays = {}, {}
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            scales[names[id(parameter)]] = group['lr']
            decays[names[id(parameter)]] = group['weight_decay']
    return scales, decays


CHECKS = {'finetune_forward': check_finetune_forward, 'schedule_layerdecay': check_schedule_layerdecay}
