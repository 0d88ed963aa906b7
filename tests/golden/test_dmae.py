"""DMAE against the authors' published code: features, projections, losses, gradients, training, other targets."""

from __future__ import annotations

import json
import re

import torch
import torch.nn.functional as F
from golden_tools import (
    NO_DECAY,
    PREPROCESSOR,
    check_deltas,
    check_gradients,
    close,
    decay_groups,
    drawn,
    equal,
    floats,
    run_epoch,
)
from torch import Tensor

from vfd.backbones import make_mask
from vfd.checkpoints import load_into
from vfd.losses.pixel import pixel_loss
from vfd.methods.dmae import DMAE
from vfd.methods.dmae.core import build_projector, feature_distance, reconstruction_target
from vfd.registry import MODELS

GOLDEN = 'dmae'
PROJECTORS = {'fc-1layer': 'fc', 'mlp-1layer': 'mlp', 'mlp-2layer': 'mlp2', 'None': None}
HEADS = 'aligned_feature_projection_heads.'


def test_golden(golden_case):
    # Whole forward passes are named after their setting; what tells them is that they hold networks and a setting.
    whole = 'case' in golden_case and 'student_cfg' in golden_case
    golden_case.check({golden_case.path.stem: check_case} if whole else CHECKS)


def build(case, networks, dtype: torch.dtype = torch.float64) -> DMAE:
    """The method with a file's settings and weights.

    Args:
        case: with ``case`` and the projection heads.
        networks: the case that says how the networks are built.
        dtype: of the model.
    """
    setting = json.loads(str(case['case']))
    student, teacher = (json.loads(str(networks[f'{who}_cfg'])) for who in ('student', 'teacher'))
    model = MODELS.build(
        dict(
            type='vfd.DMAE',
            student=dict(type='vfd.MaskedAutoencoder', **student),
            teacher=dict(
                type='vfd.Teacher', source=dict(type='vfd.MAESource', **teacher), checkpoint='random'
            ),
            align=[
                dict(student=s, teacher=t) for s, t in zip(setting['s_idx'], setting['t_idx'], strict=True)
            ],
            projector=PROJECTORS[str(setting['mode'])],
            distance=setting['func'].lower(),
            mask_ratio=float(networks['mask_ratio']),
            norm_pix=setting['norm_pix'],
            data_preprocessor=PREPROCESSOR,
        )
    )
    weights = case.companion('weights.npz')
    load_into(model.student, {name: floats(value) for name, value in weights.under('s/').items()})
    load_into(model.teacher.network, {name: floats(value) for name, value in weights.under('t/').items()})
    heads = {name: floats(value) for name, value in case.under(f's/{HEADS}').items()}
    if heads:
        load_into(model.projectors, heads)
    return model.to(dtype)


def named(model: DMAE) -> dict:
    """Parameters under the published names."""
    names = {'student.': '', 'projectors.': HEADS}
    return {
        re.sub(r'^(student|projectors)\.', lambda match: names[match[0]], name): parameter
        for name, parameter in model.named_parameters()
    }


def with_noise(model: DMAE, noise: Tensor) -> DMAE:
    model.draw_mask = lambda inputs: make_mask(noise, model.mask_ratio)
    return model


def check_case(case) -> None:
    model = build(case, case)
    images, noise = floats(case['imgs']), floats(case['noise'])
    mask = make_mask(noise, float(case['mask_ratio']))
    equal(mask.mask, case['mask'])
    equal(mask.ids_keep, case['ids_keep'])
    equal(mask.ids_restore, case['ids_restore'])

    taught = model.teacher(images, ids_keep=mask.ids_keep)
    latent, tapped = model.student.forward_tokens(images, mask.ids_keep, [block for block, _ in model.pairs])
    close(latent, case['student_latent'])
    close(model.student.reconstruct(images, mask), case['pred'])
    for i, (block, tap) in enumerate(model.pairs):
        projected = model.projectors[i](tapped[block])
        close(taught[tap], case[f'teacher_feat_{i}'])
        close(tapped[block], case[f'student_feat_{i}'])
        close(projected, case[f'projected_{i}'])
        close(F.normalize(projected, dim=-1), case[f'projected_normalized_{i}'])
        close(F.normalize(taught[tap], dim=-1), case[f'teacher_normalized_{i}'])

    losses = with_noise(model, noise)(images, None, mode='loss')
    close(losses['loss_pixel'], case['loss_pixel'])
    distill = [value for name, value in losses.items() if name.startswith('loss_distill')]
    assert len(case['loss_distill_names']) == len(distill)
    close(torch.stack(distill), case['loss_distill'])
    total = sum(losses.values())
    close(total, case['loss_total'])
    total.backward()
    check_gradients(case, named(model))

    single = with_noise(build(case, case, torch.float32), noise)(images.float(), None, mode='loss')
    close(single.pop('loss_pixel'), case['loss32_pixel'], 1e-4)
    close(torch.stack(list(single.values())), case['loss32_distill'], 1e-4)


def check_distill_loss(case) -> None:
    student = floats(case['feat_student']).requires_grad_()
    loss = feature_distance(student, floats(case['feat_teacher']), str(case['func']).lower(), normalize=False)
    loss.backward()
    close(loss, case['loss_noproj'])
    close(student.grad, case['dfeat_noproj'])
    for key in [key for key in case if key.endswith('_loss') and '/' not in key]:
        mode, distance = key.removesuffix('_loss').rsplit('_', 1)
        student, teacher = floats(case['proj_student']).requires_grad_(), floats(case['proj_teacher'])
        head = build_projector(PROJECTORS[mode], student.shape[-1], teacher.shape[-1]).double()
        load_into(
            head, {name: floats(value) for name, value in case.under(f'{mode}_{distance}_w/0.').items()}
        )
        loss = feature_distance(head(student), teacher, distance.lower())
        loss.backward()
        close(loss, case[key], name=key)
        close(student.grad, case[f'{mode}_{distance}_dfeat'], name=key)


def check_alt_targets(case) -> None:
    count, side, patch, patches, width = case['shapes'].tolist()
    seed, mask, norm_pix = int(case['seed']), floats(case['mask']), bool(case['norm_pix'])
    images = drawn(seed + 11, count, 3, side, side)
    taught = drawn(seed + 12, count, patches, width)
    predictions = [drawn(seed + 12 + k, count, patches, k * width) for k in (1, 2, 3)]
    ours = {
        'original': ('image', 1),
        'teacher_prediction': ('teacher', 1),
        'diff': ('difference', 1),
        'disentangled': ('disentangled', 2),
        'disentangle_mixup': ('mixup_disentangled', 3),
    }
    for key in [key for key in case if key in ours or key.startswith('weighted_')]:
        kind, outputs = ours.get(key, ('weighted', 1))
        given = re.fullmatch(r'weighted_(\d)(\d+)_(\d)(\d+)', key)
        weights = (float(f'{given[1]}.{given[2]}'), float(f'{given[3]}.{given[4]}')) if given else (0.5, 0.5)
        target = reconstruction_target(
            kind, images, patch, norm_pix=norm_pix, teacher_pixels=taught, weights=weights
        )
        close(pixel_loss(predictions[outputs - 1], target, mask), case[key], name=key)


def check_train_steps(case) -> None:
    args, seed, iterations = json.loads(str(case['args'])), int(case['seed']), len(case['loss_pixel'])
    setting = json.loads(str(case['case']))
    networks = case.companion('fc_l1.npz')
    assert json.loads(str(networks['case'])) == setting
    model = build(networks, networks)
    images, noise = networks['imgs'], networks['noise']
    parameters = named(model)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def losses(i: int) -> dict:
        with_noise(model, drawn(seed + 40 + i, *noise.shape, uniform=True))
        return model(drawn(seed + 20 + i, *images.shape), None, mode='loss')

    assert args['mask_ratio'] == model.mask_ratio
    optimizer = {'betas': tuple(case['betas'].tolist()), 'weight_decay': float(case['weight_decay'])}
    terms, rates, wrapper = run_epoch(
        model, parameters, losses, case, args, iterations, {'optimizer': optimizer, 'paramwise_cfg': NO_DECAY}
    )
    close([term['loss_pixel'] for term in terms], case['loss_pixel'])
    distill = [[value for name, value in term.items() if name != 'loss_pixel'] for term in terms]
    close(distill, case['loss_distill'])
    close([sum(term.values()) / args['accum_iter'] for term in terms], case['loss_total_over_accum'])
    close(rates, case['lrs'])
    groups = decay_groups(wrapper, parameters)
    assert groups['decay'] == set(case['decay_names'].tolist())
    assert groups['no_decay'] == set(case['no_decay_names'].tolist())
    check_deltas(case, parameters, before)


CHECKS = {
    'distill_loss': check_distill_loss,
    'alt_targets': check_alt_targets,
    'train_steps': check_train_steps,
}
