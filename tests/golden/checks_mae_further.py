"""Self-distillation for further pre-training: checks of the golden files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace

import torch
from golden_tools import NO_DECAY, PREPROCESSOR, check_deltas, check_gradients, close, floats
from mmengine.optim import build_optim_wrapper
from torch import Tensor

from vfd.backbones import make_mask
from vfd.checkpoints import load_into
from vfd.checkpoints.layouts import translate
from vfd.checkpoints.mae_layouts import from_hugging_face
from vfd.engine.schedulers_linear import WarmupLinearByIter
from vfd.methods.mae.self_distillation import SelfDistillMAE
from vfd.registry import MODELS

QKV = ('query', 'key', 'value')
NORM_EPS = 1e-12  # Hugging Face's for this network; the file does not say


def build(case) -> SelfDistillMAE:
    """Stage 2 with a file's settings and weights, which bear Hugging Face's names."""
    setting = json.loads(str(case['cfg']))
    cfg = setting['cfg']
    encoder = {
        'img_size': setting['img'],
        'patch_size': setting['patch'],
        'embed_dim': cfg['hidden_size'],
        'depth': cfg['num_hidden_layers'],
        'num_heads': cfg['num_attention_heads'],
        'mlp_ratio': cfg['intermediate_size'] / cfg['hidden_size'],
        'norm_eps': NORM_EPS,
    }
    decoder = {
        'decoder_embed_dim': cfg['decoder_hidden_size'],
        'decoder_depth': cfg['decoder_num_hidden_layers'],
        'decoder_num_heads': cfg['decoder_num_attention_heads'],
    }
    assert cfg['decoder_intermediate_size'] == 4 * cfg['decoder_hidden_size']
    model = MODELS.build(
        {
            'type': 'vfd.SelfDistillMAE',
            'student': {'type': 'vfd.MaskedAutoencoder', **encoder, **decoder},
            'teacher': {
                'type': 'vfd.Teacher',
                'source': {'type': 'vfd.MAESource', **encoder},
                'checkpoint': 'random',
            },
            'mask_ratio': setting['ratio'],
            'norm_pix': True,
            'data_preprocessor': PREPROCESSOR,
        }
    ).double()
    for network, prefix in ((model.student, 's/'), (model.teacher.network, 't/')):
        given = {name: floats(value) for name, value in case.under(prefix).items()}
        layout, state = translate(given)
        assert layout == 'hf-vit-mae'
        report = load_into(network, state)
        assert not report.unused and not report.missing
    return model


def with_noise(model: SelfDistillMAE, noise: Tensor) -> SelfDistillMAE:
    model.draw_mask = lambda inputs: make_mask(noise, model.mask_ratio)
    return model


def split(tensors: Mapping[str, Tensor | None], names: list[str]) -> dict[str, Tensor | None]:
    """Tensors of the student under Hugging Face's names: ``qkv`` is split in three."""
    found = {}
    for name in names:
        before, inner, rest = name.partition('.attention.attention.')
        word, _, leaf = rest.partition('.')
        trio = (
            {f'{before}{inner}{part}.{leaf}': torch.zeros(1) for part in QKV}
            if inner
            else {name: torch.zeros(1)}
        )
        (official,) = from_hugging_face(trio)
        value = tensors[official]
        found[name] = value.chunk(3)[QKV.index(word)] if inner and value is not None else value
    return found


def check_further_pretraining(case) -> None:
    model = build(case)
    images, noise = floats(case['imgs']), floats(case['noise'])
    close(model.teacher(images[0])['cls'], case['teacher_cls'])
    close(model.student.forward_cls(images[0]), case['student_cls'])
    parameters = dict(model.student.named_parameters())

    # step 0: one backward pass through the sum equals the two of the published loop
    sum(with_noise(model, noise[0])(images[0], mode='loss').values()).backward()
    names = case['gnorm_names'].tolist()
    gradients = split({name: parameter.grad for name, parameter in parameters.items()}, names)
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    assert len(from_hugging_face({name: torch.zeros(1) for name in names}).keys() & trained) == len(trained)
    check_gradients(case, {name: SimpleNamespace(grad=gradient) for name, gradient in gradients.items()})

    model = build(case)
    parameters = dict(model.student.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    losses, rates = train(model, images, noise, case)
    close([step['loss_mae'] for step in losses], case['loss_mae'])
    close([step['loss_distill'] for step in losses], case['loss_distill'])
    close(rates, case['lrs'])
    names = case['delta_names'].tolist()
    assert not model.student.pos_embed.requires_grad and not model.student.decoder_pos_embed.requires_grad
    after = split({name: value.detach() for name, value in parameters.items()}, names)
    before = split(before, names)
    close([(after[name] - before[name]).norm() for name in names], case['delta_norms'], 1e-7)
    # A key's bias moves no softmax: its gradient is rounding alone, and so is what Adam makes of it.
    rounding = [name for name in names if name.endswith('.key.bias')]
    check_deltas(case, {name: after[name] for name in names if name not in rounding}, before, skip=rounding)


def train(
    model: SelfDistillMAE, images: Tensor, noise: Tensor, case
) -> tuple[list[dict[str, float]], list[float]]:
    """The published loop: the losses of every step, and its learning rate."""
    optimizer = {
        'type': 'AdamW',
        'lr': float(case['lrs'][0]),  # no warm-up: the first step has the full rate
        'betas': tuple(case['betas'].tolist()),
        'weight_decay': float(case['weight_decay']),
    }
    wrapper = build_optim_wrapper(
        model, {'type': 'OptimWrapper', 'optimizer': optimizer, 'paramwise_cfg': NO_DECAY}
    )
    schedule = WarmupLinearByIter(wrapper, end=int(case['total_steps']))
    losses, rates = [], []
    for batch, step_noise in zip(images, noise, strict=True):
        parts = with_noise(model, step_noise)(batch, mode='loss')
        losses.append({name: float(value) for name, value in parts.items()})
        rates.append(wrapper.get_lr()['lr'][0])
        wrapper.update_params(sum(parts.values()))
        schedule.step()
    return losses, rates


CHECKS = {'further_pretraining': check_further_pretraining}
