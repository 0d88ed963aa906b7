"""G2SD, classification: logits, an epoch of training with soft and with smoothed labels, optimizer groups, NKD."""

from __future__ import annotations

import json
import re

import torch
from golden_tools import check_deltas, close, drawn, floats, run_epoch
from mmpretrain.structures import DataSample
from torch import Tensor

from vfd.checkpoints import load_into
from vfd.losses import NKDLoss
from vfd.methods.g2sd.classification import G2SDClassifier
from vfd.registry import MODELS

PREPROCESSOR = {
    'type': 'mmpretrain.ClsDataPreprocessor',
    'mean': [123.675, 116.28, 103.53],
    'std': [58.395, 57.12, 57.375],
    'to_rgb': True,
}


def build(case) -> G2SDClassifier:
    meta = json.loads(str(case['meta']))
    size = dict(img_size=meta['img_size'], patch_size=meta['patch_size'], num_classes=meta['num_classes'])
    model = MODELS.build(
        dict(
            type='vfd.G2SDClassifier',
            student=dict(
                type='vfd.ViTClassifier',
                model_name='vit_tiny_patch16_224_dist_token',
                **size,
                **meta['student'],
            ),
            teacher=dict(
                type='vfd.Teacher',
                source=dict(
                    type='vfd.TimmSource',
                    model_name='vit_base_patch16_224.mae',  # timm's other ViTs have another mean
                    global_pool='avg',
                    **size,
                    **meta['teacher'],
                ),
                checkpoint='random',
            ),
            data_preprocessor=PREPROCESSOR,
        )
    )
    load_into(model.student.model, {name: floats(value) for name, value in case.under('s/').items()})
    load_into(model.teacher.network, {name: floats(value) for name, value in case.under('t/').items()})
    return model.double()


def samples(labels: Tensor) -> list[DataSample]:
    """Scores (B, C) of mixed images, or classes (B,)."""
    soft = labels.ndim == 2
    return [DataSample().set_gt_score(row) if soft else DataSample().set_gt_label(row) for row in labels]


def check_sd_cls(case) -> None:
    model, images = build(case), floats(case['imgs'])
    network = model.student.model
    model.train()
    logits, token_logits = network.forward_heads(images)
    close(logits, case['logits_cls'])
    close(token_logits, case['logits_dist'])
    close(model.teacher(images)['logits'], case['teacher_logits'])
    model.eval()
    close(model(images, mode='tensor'), case['logits_eval'])

    # The published evaluation without the token reads the class head alone; the token stays among the others.
    close(network.forward_heads(images)[0], case['logits_eval_no_distoken'])

    for kind, labels in (
        ('soft', floats(case['soft_targets'])),
        ('smooth', torch.from_numpy(case['hard_targets'])),
    ):
        check_epoch(case, kind, samples(labels))


def check_epoch(case, kind: str, data_samples: list[DataSample]) -> None:
    """The third epoch; scores are smoothed already by the mixing, classes are smoothed by the loss."""
    model = build(case)
    model.label_smoothing = 0.0 if kind == 'soft' else 0.1
    meta, args = json.loads(str(case['meta'])), json.loads(str(case['sd_args']))
    assert not args['enable_nkd']
    parameters = dict(model.student.model.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    seed = int(case['seed']) if 'seed' in case else 3000  # the file of the published code does not hold it

    def losses(i: int) -> dict:
        return model(drawn(seed + 320 + i, *case['imgs'].shape), data_samples, mode='loss')

    config = {
        'constructor': 'vfd.LayerDecay',
        'paramwise_cfg': {'layer_decay': meta['layer_decay']},
        'optimizer': {'betas': (0.9, 0.999), 'weight_decay': 0.05},
    }
    steps = len(case[f'{kind}_loss'])
    terms, _, wrapper = run_epoch(model, parameters, losses, {'epoch': 2}, args, steps, config)
    close([term['loss_gt'] + term['loss_distill'] for term in terms], case[f'{kind}_loss'])
    close([2 * term['loss_gt'] for term in terms], case[f'{kind}_loss_gt'])
    close([2 * term['loss_distill'] for term in terms], case[f'{kind}_loss_dis'])
    check_deltas(case, parameters, before, f'{kind}_')
    check_groups(case, wrapper, parameters, args['lr'])


def check_groups(case, wrapper, parameters: dict, lr: float) -> None:
    names = {id(parameter): name for name, parameter in parameters.items()}
    ours = {
        names[id(parameter)]: (group['initial_lr'] / lr, group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    listed = case['group_names'].tolist()
    assert set(listed) == set(ours)
    close([ours[name][0] for name in listed], case['group_lr_scale'])
    close([ours[name][1] for name in listed], case['group_wd'])


def check_sd_nkd(case) -> None:
    student, teacher = case['logits_s'], floats(case['logits_t'])
    labels = {'hard': torch.from_numpy(case['hard']), 'soft': floats(case['soft'])}
    for key in [key for key in case if key.endswith('_loss')]:
        label, temperature, alpha = re.fullmatch(r'(\w+)_T([\d.]+)_a([\d.]+)_loss', key).groups()
        logits = floats(student).requires_grad_()
        loss = NKDLoss(float(temperature), float(alpha))(logits, teacher, labels[label])
        loss.backward()
        close(loss, case[key], name=key)
        close(logits.grad, case[key.removesuffix('_loss') + '_grad'], name=key)


CHECKS = {'sd_cls': check_sd_cls, 'sd_nkd': check_sd_nkd}
