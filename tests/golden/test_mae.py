"""Masked autoencoders against the published code: masks, tables, forward, loss, gradients, training, schedule."""

from __future__ import annotations

import json

import checks_mae_finetune
import checks_mae_further
import numpy as np
import timm
import torch
from golden_tools import (
    NO_DECAY,
    check_deltas,
    check_gradients,
    close,
    decay_groups,
    drawn,
    equal,
    floats,
    run_epoch,
)

from vfd.backbones import MaskedAutoencoder, keep_count, make_mask, sincos_position_table
from vfd.checkpoints import load_into
from vfd.checkpoints.pos_embed import bicubic_position_embedding
from vfd.losses.pixel import patchify, pixel_loss, pixel_target, unpatchify

GOLDEN = 'mae'


def test_golden(golden_case):
    golden_case.check(CHECKS)


def check_sincos(case) -> None:
    for key in [key for key in case if key.startswith('d') and key.count('_') == 1]:
        dim, side = (int(part[1:]) for part in key.split('_'))
        table = sincos_position_table(dim, side)[0].double()
        assert table.shape == (1 + side * side, dim)
        if f'{key}_rows' in case:
            close(table[case[f'{key}_rows']], case[key], 1e-6, key)
            sums = [table.abs().sum(), table.square().sum(), table.sum()]
            np.testing.assert_allclose(sums, case[f'{key}_sumabs'], rtol=1e-6, err_msg=key)
        else:
            close(table, case[key], 1e-6, key)
    side, other = (int(grid) for grid in case['interp_grids'])
    given = floats(case['interp_in'])
    assert given.shape[1] == 1 + side**2
    close(bicubic_position_embedding(given, (other, other)), case['interp_out'])


def check_keep_counts(case) -> None:
    for row, patches in zip(case['keep'], case['L'], strict=True):
        ours = [keep_count(int(patches), float(ratio)) for ratio in case['ratio']]
        equal(ours, row, f'{patches} patches')


def autoencoder(weights, cfg: dict) -> MaskedAutoencoder:
    cfg = {key: value for key, value in cfg.items() if key != 'in_chans'}
    model = MaskedAutoencoder(**cfg).double()
    assert set(model.state_dict()) == set(weights)
    load_into(model, {name: floats(value) for name, value in weights.items()})
    return model


def check_mae_forward(case) -> None:
    model = autoencoder(case.under('w/'), json.loads(str(case['cfg'])))
    images = floats(case['imgs'])
    mask = make_mask(floats(case['noise']), float(case['mask_ratio']))
    equal(mask.ids_keep, case['ids_keep'])
    equal(mask.ids_restore, case['ids_restore'])
    equal(mask.mask, case['mask'])
    close(model.embed(images, mask.ids_keep), case['tokens_kept'])
    latent, _ = model.forward_tokens(images, mask.ids_keep)
    close(latent, case['latent'])
    pred = model.reconstruct(images, mask)
    close(pred, case['pred'])
    equal(patchify(images, model.patch_size), floats(case['patchified']))
    close(unpatchify(pred, model.patch_size, model.grid), case['unpatchified_pred'])
    for kind in ('raw', 'norm'):
        model.zero_grad()
        latent, _ = model.forward_tokens(images, mask.ids_keep)
        hidden = model.pixels(model.decode_masked(latent, mask))  # the path that training takes
        target = pixel_target(images, model.patch_size, kind == 'norm', mask.ids_masked)
        loss = pixel_loss(hidden, target)
        close(loss, case[f'loss_{kind}'])
        loss.backward()
        check_gradients(case, dict(model.named_parameters()), f'{kind}/')


def check_pixel_loss(case) -> None:
    patch = round((case['pred'].shape[-1] / 3) ** 0.5)
    for kind in ('raw', 'norm'):
        for dtype, key, tolerance in ((torch.float64, 'loss', 1e-9), (torch.float32, 'loss32', 1e-4)):
            pred = floats(case['pred']).to(dtype).requires_grad_()
            target = pixel_target(floats(case['imgs']).to(dtype), patch, kind == 'norm')
            loss = pixel_loss(pred, target, floats(case['mask']).to(dtype))
            close(loss, case[f'{key}_{kind}'], tolerance)
            loss.backward()
            close(pred.grad, case[f'dpred_{kind}'], 1e-9 if dtype == torch.float64 else 1e-3)


def check_train_steps(case) -> None:
    model = autoencoder(case.companion('mae_forward.npz').under('w/'), json.loads(str(case['cfg'])))
    args, seed, iterations = json.loads(str(case['args'])), int(case['seed']), len(case['losses'])
    parameters = dict(model.named_parameters())
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    height, width = model.patch_embed.img_size
    batch = case.companion('mae_forward.npz')['imgs'].shape[0]

    def losses(i: int) -> dict:
        images = drawn(seed + 20 + i, batch, 3, height, width)
        noise = drawn(seed + 40 + i, batch, model.num_patches, uniform=True)
        mask = make_mask(noise, args['mask_ratio'])
        latent, _ = model.forward_tokens(images, mask.ids_keep)
        hidden = model.pixels(model.decode_masked(latent, mask))
        return {'loss': pixel_loss(hidden, pixel_target(images, model.patch_size, True, mask.ids_masked))}

    optimizer = {'betas': tuple(case['betas'].tolist()), 'weight_decay': float(case['weight_decay'])}
    terms, rates, wrapper = run_epoch(
        model, parameters, losses, case, args, iterations, {'optimizer': optimizer, 'paramwise_cfg': NO_DECAY}
    )
    close([term['loss'] for term in terms], case['losses'])
    close(np.stack([rates] * case['lrs'].shape[1], 1), case['lrs'])
    groups = decay_groups(wrapper, parameters)
    assert groups['decay'] == set(case['decay_names'].tolist())
    assert groups['no_decay'] == set(case['no_decay_names'].tolist())
    check_deltas(case, parameters, before)


def check_checkpoint_keys(case) -> None:
    """The networks have exactly the tensors of the released files."""
    with torch.device('meta'):
        networks = {
            'mae': MaskedAutoencoder(arch='base'),
            'finetune': timm.create_model('vit_base_patch16_224', global_pool='avg', num_classes=1000),
        }
    assert len(case) == len(networks)
    for key in case:
        network = networks['mae' if 'decoder_embed.weight' in dict(_shapes(case[key])) else 'finetune']
        ours = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        assert ours == {name: tuple(shape) for name, shape in _shapes(case[key])}, key


def _shapes(listing) -> list:
    return list(listing.items()) if isinstance(listing, dict) else [tuple(entry) for entry in listing]


CHECKS = {
    'sincos': check_sincos,
    'keep_counts': check_keep_counts,
    'mae_forward': check_mae_forward,
    'pixel_loss': check_pixel_loss,
    'train_steps': check_train_steps,
    'checkpoint_keys': check_checkpoint_keys,
    **checks_mae_finetune.CHECKS,
    **checks_mae_further.CHECKS,
}
