"""G2SD, generic stage: forward, loss, gradients and training on the published code's numbers."""

from __future__ import annotations

import json
import re

import torch
from golden_tools import (
    NO_DECAY,
    PREPROCESSOR,
    check_deltas,
    check_gradients,
    close,
    drawn,
    equal,
    floats,
    run_epoch,
)
from torch import Tensor

from vfd.backbones import make_mask
from vfd.checkpoints import load_into
from vfd.methods.g2sd import G2SDGeneric
from vfd.registry import MODELS

PREDICTOR = 'decoderfeature_pred.'
UNUSED = re.compile(
    r'encoderfeature_pred\.|decoder_norm\.|decoder_pred\.'
)  # no part of ours: they never learn


def build(case, supervise: str = 'all') -> G2SDGeneric:
    """The method with the settings of ``gd_forward.npz`` and the shared weights."""
    cfg = json.loads(str(case['cfg']))
    weights = case.companion('gd_weights.npz')
    height, width = case['imgs'].shape[-2:]
    patch = weights['t/patch_embed.proj.weight'].shape[-1]
    size = dict(img_size=(height, width), patch_size=patch)
    model = MODELS.build(
        dict(
            type='vfd.G2SDGeneric',
            student=dict(type='vfd.MaskedAutoencoder', **cfg['student'], **size),
            teacher=dict(
                type='vfd.Teacher',
                source=dict(type='vfd.MAESource', **cfg['teacher'], **size),
                checkpoint='random',
            ),
            teacher_layer=cfg['sup'],
            supervise=supervise,
            mask_ratio=float(case['mask_ratio']),
            data_preprocessor=PREPROCESSOR,
        )
    )
    student = {name: floats(value) for name, value in weights.under('s/').items()}
    load_into(model.student, student)
    load_into(model.predictor, student, prefix=PREDICTOR)
    load_into(model.teacher.network, {name: floats(value) for name, value in weights.under('t/').items()})
    return model.double()


def named(model: G2SDGeneric) -> dict:
    """Parameters under the published names."""
    return {
        name.removeprefix('student.').replace('predictor.', PREDICTOR): parameter
        for name, parameter in model.named_parameters()
    }


def with_noise(model: G2SDGeneric, noise: Tensor) -> G2SDGeneric:
    model.draw_mask = lambda inputs: make_mask(noise, model.mask_ratio)
    return model


def check_gd_forward(case) -> None:
    images, noise = floats(case['imgs']), floats(case['noise'])
    mask = make_mask(noise, float(case['mask_ratio']))
    equal(mask.mask, case['mask'])
    equal(mask.ids_restore, case['ids_restore'])
    for supervise, part, key in (('all', 'all/', 'loss'), ('masked', 'masked/', 'loss_masked_only')):
        model = with_noise(build(case, supervise), noise)
        loss = model(images, None, mode='loss')['loss_generic']
        close(loss, case[key])
        loss.backward()
        skip = [name for name in case[f'{part}gnorm_names'].tolist() if UNUSED.match(name)]
        check_gradients(case, named(model), part, skip)

    hidden = model.teacher(images, ids_keep=mask.ids_keep)[model.tap]
    close(hidden, case['teacher_hidden'], 1e-6)  # stored in float32
    close(torch.nn.functional.layer_norm(hidden, hidden.shape[-1:], eps=1e-6), case['target'])
    latent, _ = model.student.forward_tokens(images, mask.ids_keep)
    close(latent, case['student_latent'])
    tokens = model.student.decode(latent, mask.ids_keep)
    close(tokens, case['student_decoder_hidden'], 1e-6)
    close(model.predictor(tokens), case['student_pred'])
    network = model.teacher.network
    last = len(network.blocks) - 1
    close(network.forward_blocks(images, mask.ids_keep, [last])[last], case['teacher_prenorm'])

    # The released file's head on the encoder's features has weight 0; ours does not have it. Its loss, for the record:
    weights = case.companion('gd_weights.npz')
    x = latent
    for layer in ('fc1', 'fc2'):
        names = (f's/encoderfeature_pred.{layer}.{part}' for part in ('weight', 'bias'))
        x = torch.nn.functional.linear(x, *(floats(weights[name]) for name in names))
        x = torch.nn.functional.gelu(x) if layer == 'fc1' else x
    features = floats(case['teacher_prenorm'])
    features = torch.nn.functional.layer_norm(features, features.shape[-1:], eps=1e-6)
    unused = torch.nn.functional.smooth_l1_loss(x, features, beta=2.0)
    close(unused, case['loss_encoder_feature_unused'])


def check_gd_train_steps(case) -> None:
    args, seed, iterations = json.loads(str(case['args'])), int(case['seed']), len(case['losses'])
    forward = case.companion('gd_forward.npz')
    model = build(forward)
    assert args['mask_ratio'] == model.mask_ratio
    parameters = named(model)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def losses(i: int) -> dict:
        with_noise(model, drawn(seed + 40 + i, *forward['noise'].shape, uniform=True))
        return model(drawn(seed + 20 + i, *forward['imgs'].shape), None, mode='loss')

    optimizer = {'betas': (0.9, 0.95), 'weight_decay': 0.05}
    terms, rates, _ = run_epoch(
        model, parameters, losses, case, args, iterations, {'optimizer': optimizer, 'paramwise_cfg': NO_DECAY}
    )
    close([term['loss_generic'] for term in terms], case['losses'])
    close(rates, case['lrs'])
    # The head that ours lacks: its loss is known to be finite, its weights only decay.
    assert len(case['losses_encoder_unused']) == iterations
    skip = [name for name in case['delta_names'].tolist() if UNUSED.match(name)]
    check_deltas(case, parameters, before, skip=skip)


CHECKS = {'gd_forward': check_gd_forward, 'gd_train_steps': check_gd_train_steps}
