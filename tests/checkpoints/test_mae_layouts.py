"""Masked autoencoders of Hugging Face and mmpretrain load under the released names, completely and to the digit."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from vfd.backbones import MaskedAutoencoder, MaskedViT
from vfd.checkpoints import load_into, load_state
from vfd.checkpoints.layouts import translate
from vfd.errors import UserError
from vfd.registry import MODELS

GOLDEN = Path(__file__).parents[1] / 'golden/data/mae'
TINY = {'img_size': 24, 'patch_size': 4, 'embed_dim': 24, 'depth': 2, 'num_heads': 3}
DECODER = {'decoder_embed_dim': 16, 'decoder_depth': 1, 'decoder_num_heads': 2}
BLOCK_TO_HF = {
    'norm1': 'layernorm_before',
    'norm2': 'layernorm_after',
    'attn.proj': 'attention.output.dense',
    'mlp.fc1': 'intermediate.dense',
    'mlp.fc2': 'output.dense',
}


def to_hugging_face(state: dict) -> dict:
    """The way back, written apart from the way there."""
    outer = {'cls_token': 'vit.embeddings.cls_token', 'pos_embed': 'vit.embeddings.position_embeddings'}
    result = {}
    for name, value in state.items():
        if name in outer:
            result[outer[name]] = value
        elif match := re.fullmatch(r'(decoder_)?blocks\.(\d+)\.(\w+(?:\.\w+)?)\.(weight|bias)', name):
            decoder, index, part, leaf = match.groups()
            block = f'{"decoder.decoder_layers" if decoder else "vit.encoder.layer"}.{index}'
            if part == 'attn.qkv':
                for word, third in zip(('query', 'key', 'value'), value.chunk(3), strict=True):
                    result[f'{block}.attention.attention.{word}.{leaf}'] = third
            else:
                result[f'{block}.{BLOCK_TO_HF[part]}.{leaf}'] = value
        elif name.startswith('patch_embed.proj.'):
            result[name.replace('patch_embed.proj', 'vit.embeddings.patch_embeddings.projection')] = value
        elif name.startswith('norm.'):
            result[f'vit.layer{name}'] = value
        else:
            result[f'decoder.{name}'] = value
    return result


def golden_weights(prefix: str) -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / 'further_pretraining.npz') as file:
        return {
            key.removeprefix(prefix): torch.from_numpy(file[key])
            for key in file.files
            if key.startswith(prefix)
        }


def equal(ours: dict, theirs: dict) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_hugging_face_with_decoder(tmp_path):
    given = golden_weights('s/')
    torch.save(given, tmp_path / 'pytorch_model.bin')
    file = load_state(tmp_path / 'pytorch_model.bin')
    assert file.layout == 'hf-vit-mae'
    model = MaskedAutoencoder(**TINY, **DECODER)
    report = load_into(model, file)
    assert not report.missing and not report.unused
    assert set(file.state) == set(model.state_dict())
    assert equal(to_hugging_face(model.state_dict()), given)


@pytest.mark.parametrize('prefix', ['', 'vit.'])
def test_hugging_face_encoder_alone(tmp_path, prefix):
    """What the released further pre-training writes after each stage."""
    given = {f'{prefix}{name}': value for name, value in golden_weights('t/').items()}
    torch.save({'args': argparse.Namespace(seed=1), 'state_dict': given}, tmp_path / 'stage.pt')
    file = load_state(tmp_path / 'stage.pt')
    assert (file.layout, file.meta['args']) == ('hf-vit-mae', {'seed': 1})
    model = MaskedViT(**TINY)
    report = load_into(model, file)
    assert not report.missing and not report.unused
    assert {f'vit.{name}' for name in golden_weights('t/')} == set(to_hugging_face(model.state_dict()))
    with pytest.raises(UserError, match='decoder'):
        load_into(MaskedAutoencoder(**TINY, **DECODER), file)


def test_released_names_round_trip():
    """All tensors of the released ViT-B, encoder and decoder."""
    listings = json.loads((GOLDEN / 'checkpoint_keys.json').read_text())
    shapes = next(dict(listing) for listing in listings.values() if 'mask_token' in dict(listing))
    state = {
        name: torch.rand(shape) if len(shape) == 1 else torch.zeros(shape) for name, shape in shapes.items()
    }
    layout, there = translate(to_hugging_face(state))
    assert layout == 'hf-vit-mae' and equal(there, state)
    assert translate(state) == (None, state)  # the released files need no map


@pytest.fixture
def mmpretrain_mae():
    blocks = {'embed_dims': 24, 'num_layers': 2, 'num_heads': 3, 'feedforward_channels': 96}
    return MODELS.build(
        {
            'type': 'mmpretrain.MAE',
            'backbone': {'type': 'mmpretrain.MAEViT', 'arch': blocks, 'img_size': 24, 'patch_size': 4},
            'neck': {
                'type': 'mmpretrain.MAEPretrainDecoder',
                'num_patches': 36,
                'patch_size': 4,
                'embed_dim': 24,
                'decoder_embed_dim': 16,
                'decoder_depth': 1,
                'decoder_num_heads': 2,
            },
            'head': {
                'type': 'mmpretrain.MAEPretrainHead',
                'norm_pix': True,
                'patch_size': 4,
                'loss': {'type': 'mmpretrain.PixelReconstructionLoss', 'criterion': 'L2'},
            },
        }
    ).double()


def test_mmpretrain(mmpretrain_mae, tmp_path):
    """Its network and ours answer the same with the same file."""
    theirs = mmpretrain_mae
    torch.nn.init.normal_(theirs.neck.mask_token)
    meta = {'mmengine_version': '0.10.7'}
    torch.save({'state_dict': theirs.state_dict(), 'meta': meta}, tmp_path / 'epoch_1.pth')
    file = load_state(tmp_path / 'epoch_1.pth')
    ours = MaskedAutoencoder(**TINY, **DECODER).double()
    report = load_into(ours, file)
    assert not report.missing and not report.unused
    images = torch.rand(2, 3, 24, 24, dtype=torch.float64)
    latent, _, ids_restore = theirs.backbone(images, mask=True)
    keep = ids_restore.argsort(dim=1)[:, : latent.shape[1] - 1]
    torch.testing.assert_close(ours.forward_tokens(images, keep)[0], latent, rtol=0, atol=1e-12)
    pixels = ours.pixels(ours.decode(latent, keep)[:, 1:])
    torch.testing.assert_close(pixels, theirs.neck(latent, ids_restore), rtol=0, atol=1e-12)


def test_networks_that_read_their_own_names_keep_them(mmpretrain_mae):
    encoder = {name: value for name, value in mmpretrain_mae.state_dict().items() if 'backbone' in name}
    assert translate(encoder)[0] is None
    vit = to_hugging_face(MaskedViT(**TINY).state_dict())
    assert translate({**vit, 'classifier.weight': torch.zeros(2, 24)})[0] is None
    distilled = {**vit, 'vit.embeddings.distillation_token': torch.zeros(1, 1, 24)}
    assert translate(distilled)[0] is None


def test_a_third_of_qkv_alone_is_missed():
    given = golden_weights('s/')
    del given['vit.encoder.layer.1.attention.attention.key.bias']
    with pytest.raises(UserError, match=r'blocks\.1\.attn\.qkv\.bias'):
        load_into(MaskedAutoencoder(**TINY, **DECODER), translate(given)[1])


def test_mmpretrain_names_are_changed_for_timms_networks_only(mmpretrain_mae, tmp_path):
    """The encoder alone is read too, and mmpretrain's own backbone takes the file as it is."""
    encoder = {
        name: value for name, value in mmpretrain_mae.state_dict().items() if name.startswith('backbone.')
    }
    torch.save({'state_dict': encoder}, tmp_path / 'encoder.pth')
    file = load_state(tmp_path / 'encoder.pth')
    assert not load_into(MaskedViT(**TINY), file).missing
    assert not load_into(mmpretrain_mae.backbone, file).missing
    with pytest.raises(UserError, match='decoder'):
        load_into(MaskedAutoencoder(**TINY, **DECODER), file)
