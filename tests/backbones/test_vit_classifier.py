"""ViTClassifier: what it starts from, what it computes, its form in timm, what is refused."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample
from torch import nn

from vfd.backbones import MaskedAutoencoder, ViTClassifier
from vfd.errors import MissingFileError, UserError
from vfd.registry import MODELS

CLASSES = 5
VIT = {'img_size': 32, 'patch_size': 8, 'embed_dim': 24, 'depth': 2, 'num_heads': 2}
PLAIN = {'type': 'vfd.ViTClassifier', 'model_name': 'vit_tiny_patch16_224', 'num_classes': CLASSES, **VIT}
TOKEN = {**PLAIN, 'model_name': 'vit_tiny_patch16_224_dist_token'}
SMOOTH = {'type': 'mmpretrain.LabelSmoothLoss', 'label_smooth_val': 0.1, 'mode': 'original'}
PREPROCESSOR = {
    'type': 'mmpretrain.ClsDataPreprocessor',
    'num_classes': CLASSES,
    'mean': [123.675, 116.28, 103.53],
    'std': [58.395, 57.12, 57.375],
    'to_rgb': True,
}
MIXING = {
    'augments': [
        {'type': 'mmpretrain.Mixup', 'alpha': 0.8},
        {'type': 'mmpretrain.CutMix', 'alpha': 1.0},
    ]
}


def build(config: dict, **options):
    torch.manual_seed(0)
    return MODELS.build(copy.deepcopy({**config, **options}))


def images(seed: int = 0, count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def samples(labels) -> list[DataSample]:
    return [DataSample().set_gt_label(label) for label in labels]


def pretrained(tmp_path: Path, layout: str, **options) -> tuple[Path, MaskedAutoencoder]:
    """A pre-training checkpoint as vfd or as the released code writes it."""
    torch.manual_seed(1)
    network = MaskedAutoencoder(
        **{**VIT, **options}, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2
    )
    state = network.state_dict()
    if layout == 'vfd':
        extra = {'projectors.0.weight': torch.zeros(2, 2)}
        content = {'meta': {'vfd': {}}, 'state_dict': {f'student.{k}': v for k, v in state.items()} | extra}
    else:
        content = {'model': {name: value for name, value in state.items() if 'decoder' not in name}}
    torch.save(content, tmp_path / 'pretrained.pth')
    return tmp_path / 'pretrained.pth', network


@pytest.mark.parametrize(
    'student', [PLAIN | {'global_pool': 'avg'}, PLAIN, TOKEN], ids=['avg', 'cls', 'token']
)
@pytest.mark.parametrize('layout', ['vfd', 'released'])
def test_it_starts_from_a_pre_training(tmp_path, student, layout):
    path, source = pretrained(tmp_path, layout)
    model = build(student, checkpoint=str(path))
    fresh = {name: value.clone() for name, value in model.model.state_dict().items()}
    model.init_weights()
    for name, value in model.model.state_dict().items():
        new = name.startswith(('head', 'fc_norm', 'dist_token'))
        assert value.equal(fresh[name] if new else source.state_dict()[name]), name
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        model.model.cls_token.zero_()
    model.init_weights()  # once
    assert not model.model.cls_token.any()


def test_the_new_classifier_is_nearly_zero_and_the_token_is_not():
    network = build(TOKEN).model
    assert 0 < network.head.weight.abs().max() < 1e-4 and not network.head.bias.any()
    assert 0.01 < network.head_dist.weight.std() < 0.03 and 0.01 < network.dist_token.std() < 0.03
    assert build(PLAIN, head_init_std=0.02).model.head.weight.std() > 0.01


def test_the_mean_of_the_patches_is_read_without_the_class_token():
    model = build(PLAIN, global_pool='avg', head_init_std=0.02).eval()
    network = model.model
    assert isinstance(network.norm, nn.Identity)
    tokens = network.forward_features(images())
    expected = network.head(network.fc_norm(tokens[:, 1:].mean(1)))
    torch.testing.assert_close(model(images(), mode='tensor'), expected)


def test_names_are_timms():
    model = build(PLAIN, global_pool='avg')
    assert list(model.state_dict()) == list(model.model.state_dict())


@pytest.mark.parametrize(
    'student', [PLAIN | {'global_pool': 'avg'}, PLAIN, TOKEN], ids=['avg', 'cls', 'token']
)
def test_timm_alone_builds_an_equal_network(student):
    model = build(student, head_init_std=0.02, checkpoint='no/such/file.pth', loss=SMOOTH).double().eval()
    name, arguments, state = model.timm_form()
    assert '_dist_token' not in name and set(arguments) <= {'num_classes', 'global_pool', *VIT}
    network = timm.create_model(name, **arguments).double().eval()
    network.load_state_dict(state)
    torch.testing.assert_close(network(images().double()), model(images().double()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('mixed', [False, True])
def test_labels_are_smoothed_whether_images_are_mixed_or_not(mixed):
    preprocessor = {**PREPROCESSOR, 'batch_augments': MIXING} if mixed else PREPROCESSOR
    model = build(PLAIN, head_init_std=0.1, loss=SMOOTH, data_preprocessor=preprocessor).train()
    np.random.seed(0)
    batch = {'inputs': images(), 'data_samples': samples([0, 1, 2, 3])}
    batch = model.data_preprocessor(batch, training=True)
    target = torch.tensor([0, 1, 2, 3])
    if mixed:
        target = torch.stack([sample.gt_score for sample in batch['data_samples']])
        assert ((target > 0).sum(1) > 1).any()
    expected = F.cross_entropy(model.model(batch['inputs']), target, label_smoothing=0.1)
    assert model(**batch, mode='loss')['loss'].item() == pytest.approx(expected.item(), rel=1e-5)


def test_dropout_of_hugging_faces_vit():
    """Dropout of 0.1 after embeddings, attention and MLP, and none inside the MLP."""
    network = build(PLAIN, pos_drop_rate=0.1, proj_drop_rate=0.1, mlp_hidden_drop_rate=0.0).model
    rates = {name: part.p for name, part in network.named_modules() if isinstance(part, nn.Dropout)}
    dropping = {name for name, rate in rates.items() if rate}
    assert dropping == {
        'pos_drop',
        *(f'blocks.{i}.{part}' for i in range(2) for part in ('attn.proj_drop', 'mlp.drop2')),
    }
    assert {rates[name] for name in dropping} == {0.1}


def test_a_position_table_of_another_grid_is_resized_only_when_asked(tmp_path):
    path, source = pretrained(tmp_path, 'vfd', img_size=48)
    with pytest.raises(UserError, match=r'pos_embed.*resize_pos_embed=True'):
        build(PLAIN, checkpoint=str(path)).init_weights()
    model = build(PLAIN, checkpoint=str(path), resize_pos_embed=True)
    model.init_weights()
    torch.testing.assert_close(model.model.pos_embed[:, 0], source.pos_embed[:, 0])


def test_an_incomplete_encoder_is_refused(tmp_path):
    path, _ = pretrained(tmp_path, 'vfd')
    content = torch.load(path, weights_only=True)
    for name in [name for name in content['state_dict'] if '.blocks.1.' in name]:
        del content['state_dict'][name]
    torch.save(content, path)
    model = build(PLAIN, checkpoint=str(path))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r'Missing 12 of .*blocks\.1\.'):
        model.init_weights()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    with pytest.raises(MissingFileError, match='absent'):
        build(PLAIN, checkpoint=str(tmp_path / 'absent.pth')).init_weights()


@pytest.mark.parametrize(
    'options', [{'model_name': 'test_resnet', 'num_classes': 5}, {**PLAIN, 'num_classes': 0}]
)
def test_only_transformers_with_a_classifier(options):
    with pytest.raises(UserError, match='no vision transformer'):
        MODELS.build({'type': 'vfd.ViTClassifier', **options})


def test_published_weights_survive_the_runners_initialisation():
    model = build(PLAIN)
    with torch.no_grad():
        model.model.pos_embed.fill_(0.25)
    model.init_weights()
    assert isinstance(model, ViTClassifier) and (model.model.pos_embed == 0.25).all()
