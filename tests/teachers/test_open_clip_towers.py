"""Every kind of image tower of open_clip as teacher, each tap against open_clip's or timm's own output."""

import json

import open_clip
import pytest
import torch

from vfd.errors import UserError
from vfd.teachers import Teacher

TEXT = {'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 1}
TOWERS = {
    'vfd-vit': {'image_size': 32, 'layers': 3, 'width': 64, 'patch_size': 16, 'head_width': 32},
    'vfd-resnet': {'image_size': 64, 'layers': [1, 1, 1, 1], 'width': 8, 'patch_size': None},
    # As SigLIP's (attention pooling, no projection), EVA's (rotary) and MobileCLIP's (convolutions).
    'vfd-siglip': {
        'image_size': 160,
        'timm_model_name': 'test_vit3',
        'timm_pool': 'map',
        'timm_proj': 'none',
    },
    'vfd-eva': {'image_size': 32, 'timm_model_name': 'vit_tiny_patch16_dinov3_qkvb', 'timm_pool': 'token'},
    'vfd-convnext': {'image_size': 64, 'timm_model_name': 'test_convnext', 'timm_pool': ''},
}


@pytest.fixture(scope='module', autouse=True)
def registered(tmp_path_factory):
    folder = tmp_path_factory.mktemp('towers')
    for name, vision in TOWERS.items():
        width = 96 if name == 'vfd-siglip' else 16
        config = {'embed_dim': width, 'vision_cfg': {'timm_proj': 'linear', **vision}, 'text_cfg': TEXT}
        (folder / f'{name}.json').write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    yield
    for name in TOWERS:
        open_clip.factory._MODEL_CONFIGS.pop(name, None)


def tower(name, monkeypatch):
    """A model of open_clip with noise on its weights, and images; teachers get the same model."""
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    monkeypatch.setattr(open_clip, 'create_model', lambda *args, **kwargs: model)
    size = model.visual.image_size
    return model, torch.rand(2, 3, *(size if isinstance(size, tuple) else (size, size)))


def teacher(name, *taps):
    return Teacher({'type': 'vfd.OpenCLIPSource', 'model_name': name}, 'random', taps=taps)


@pytest.mark.parametrize('name', [name for name in TOWERS if name not in ('vfd-resnet', 'vfd-convnext')])
@torch.inference_mode()
def test_blocks_and_maps_of_transformers(name, monkeypatch):
    model, images = tower(name, monkeypatch)
    trunk = getattr(model.visual, 'trunk', None)
    leaving = []
    for block in model.visual.transformer.resblocks if trunk is None else trunk.blocks:
        block.register_forward_hook(lambda module, args, output: leaving.append(output))
    pooled = model.encode_image(images)
    taps = ('block.0', 'block.-1', 'stage.1', 'pooled')
    answers = teacher(name, *taps)(images)
    torch.testing.assert_close(answers['pooled'], pooled)
    expected = [tokens.clone() for tokens in leaving]
    torch.testing.assert_close(answers['block.0'], expected[0])
    torch.testing.assert_close(answers['block.-1'], expected[len(expected) // 2 - 1])
    prefix = expected[1].shape[1] - answers['stage.1'].flatten(2).shape[2]
    torch.testing.assert_close(answers['stage.1'].flatten(2).transpose(1, 2), expected[1][:, prefix:])
    leaving.clear()
    alone = teacher(name, 'block.1')(images)['block.1']
    torch.testing.assert_close(alone, expected[1])
    assert len(leaving) == 2  # the blocks behind it do not run


@torch.inference_mode()
def test_maps_of_open_clips_resnet(monkeypatch):
    model, images = tower('vfd-resnet', monkeypatch)
    visual = model.visual
    stem = visual.stem(images)
    maps = [stem, visual.layer1(stem)]
    answers = teacher('vfd-resnet', 'stage.0', 'stage.1', 'pooled')(images)
    torch.testing.assert_close(answers['stage.0'], maps[0])
    torch.testing.assert_close(answers['stage.1'], maps[1])
    torch.testing.assert_close(answers['pooled'], model.encode_image(images))
    ran = []
    visual.layer3.register_forward_hook(lambda module, args, output: ran.append(1))
    torch.testing.assert_close(teacher('vfd-resnet', 'stage.1')(images)['stage.1'], maps[1])
    assert not ran


@torch.inference_mode()
def test_maps_of_a_convolutional_tower_of_timm(monkeypatch):
    model, images = tower('vfd-convnext', monkeypatch)
    maps = model.visual.trunk.forward_intermediates(images, intermediates_only=True)
    answers = teacher('vfd-convnext', 'stage.1', 'stage.-1', 'pooled')(images)
    torch.testing.assert_close(answers['stage.1'], maps[1])
    torch.testing.assert_close(answers['stage.-1'], maps[-1])
    torch.testing.assert_close(answers['pooled'], model.encode_image(images))


@pytest.mark.parametrize('name', ['vfd-resnet', 'vfd-convnext'])
def test_towers_without_blocks_say_so(name):
    with pytest.raises(UserError, match=r'stage\.<k>'):
        teacher(name, 'block.0')
