"""Folders of transformers as teachers: weights, normalisation, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForDepthEstimation,
    AutoModelForImageClassification,
    CLIPImageProcessor,
    ViTImageProcessor,
)

from vfd.errors import UserError
from vfd.teachers import Teacher

VIT = {
    'hidden_size': 32,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 64,
    'patch_size': 16,
}
DINO = {**VIT, 'image_size': 32, 'num_labels': 5}
TEXT = {
    'hidden_size': 16,
    'num_hidden_layers': 1,
    'num_attention_heads': 2,
    'intermediate_size': 32,
    'vocab_size': 99,
}


def save(network, folder, processor=None):
    """Write a folder as transformers writes it; noise makes every tensor its own."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    network.eval().save_pretrained(folder)
    processor = processor or ViTImageProcessor(size={'height': 32, 'width': 32}, image_mean=[0.4] * 3)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def classifier(tmp_path):
    torch.manual_seed(0)
    network = AutoModelForImageClassification.from_config(AutoConfig.for_model('dinov2', **DINO))
    return network, save(network, tmp_path / 'dino')


def teacher(folder, checkpoint, *taps, **source):
    return Teacher({'type': 'vfd.HuggingFaceSource', 'model_name': folder, **source}, checkpoint, taps=taps)


@pytest.mark.parametrize('checkpoint', ['pretrained', 'file'])
def test_a_folder_gives_network_weights_and_normalisation(classifier, checkpoint):
    network, folder = classifier
    path = folder + '/model.safetensors' if checkpoint == 'file' else checkpoint
    tapped = teacher(folder, path, 'logits', 'pooled', 'block.0')
    images = torch.randn(2, 3, 32, 32)
    answers = tapped(images)
    torch.testing.assert_close(answers['logits'], network(images).logits)
    torch.testing.assert_close(network.classifier(answers['pooled']), answers['logits'])
    assert tapped.num_classes == 5 and tapped.source.image_size == (32, 32)
    assert tapped.normalization.mean == pytest.approx([102] * 3)
    assert tapped.normalization.std == pytest.approx([127.5] * 3)
    assert not tapped.report.missing


def test_an_early_block_of_that_folder_needs_neither_the_rest_nor_the_classifier(classifier):
    network, folder = classifier
    state = load_file(folder + '/model.safetensors')
    early = {
        name: tensor for name, tensor in state.items() if 'layer.1.' not in name and 'classifier' not in name
    }
    assert len(early) < len(state)
    save_file(early, folder + '/model.safetensors')
    images = torch.randn(1, 3, 32, 32)
    expected = network.dinov2(images, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(teacher(folder, 'pretrained', 'block.0')(images)['block.0'], expected)
    for checkpoint in ('pretrained', folder + '/model.safetensors'):
        with pytest.raises(UserError, match=r'layer\.1\.'):
            teacher(folder, checkpoint, 'block.1')


def test_weights_of_another_shape_are_refused(classifier, tmp_path):
    wider = AutoModel.from_config(AutoConfig.for_model('dinov2', **{**DINO, 'hidden_size': 64}))
    save_file(wider.state_dict(), tmp_path / 'wider.safetensors')
    with pytest.raises(UserError, match=r'wider\.safetensors.*shape'):
        teacher(classifier[1], str(tmp_path / 'wider.safetensors'), 'block.0')


def test_random_weights_of_a_folder(classifier):
    tapped = teacher(classifier[1], 'random', 'pooled')
    assert 'RANDOM' in tapped.summary()['teacher loaded']


@pytest.mark.parametrize('kind', ['clip', 'siglip'])
def test_of_image_and_text_the_image_tower(kind, tmp_path):
    torch.manual_seed(0)
    vision = {**VIT, 'image_size': 32}
    whole = AutoModel.from_config(AutoConfig.for_model(kind, vision_config=vision, text_config=TEXT))
    folder = save(whole, tmp_path / kind, CLIPImageProcessor(crop_size={'height': 32, 'width': 32}))
    tapped = teacher(folder, 'pretrained', 'pooled', 'block.0')
    images = torch.randn(2, 3, 32, 32)
    outputs = whole.vision_model(images, output_hidden_states=True)
    answers = tapped(images)
    torch.testing.assert_close(answers['pooled'], outputs.pooler_output)
    torch.testing.assert_close(answers['block.0'], outputs.hidden_states[1])
    assert not any('text' in name for name in tapped.network.state_dict())


def test_the_backbone_of_a_depth_network(tmp_path):
    torch.manual_seed(0)
    backbone = {'model_type': 'dinov2', **VIT, 'image_size': 32, 'out_features': ['stage1', 'stage2'],
                'reshape_hidden_states': False}  # fmt: skip
    sizes = {'neck_hidden_sizes': [8, 8], 'reassemble_hidden_size': 32, 'fusion_hidden_size': 8, 'head_hidden_size': 8,
             'reassemble_factors': [1, 1]}  # fmt: skip
    config = AutoConfig.for_model('depth_anything', backbone_config=backbone, **sizes)
    whole = AutoModelForDepthEstimation.from_config(config)
    tapped = teacher(save(whole, tmp_path / 'depth'), 'pretrained', 'block.-1')
    images = torch.randn(1, 3, 32, 32)
    expected = whole.backbone(images, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(tapped(images)['block.-1'], expected)
    assert not any('neck' in name or 'head' in name for name in tapped.network.state_dict())


def test_a_classifier_on_siglip(tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        'siglip', vision_config={**VIT, 'image_size': 32}, text_config=TEXT, num_labels=4
    )
    network = AutoModelForImageClassification.from_config(config)
    tapped = teacher(save(network, tmp_path / 'siglip'), 'pretrained', 'logits', 'pooled')
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(tapped(images)['logits'], network(images).logits)
    torch.testing.assert_close(network.classifier(tapped(images)['pooled']), network(images).logits)


def test_a_folder_without_normalisation_takes_mean_and_std(classifier, tmp_path):
    _, folder = classifier
    (tmp_path / 'dino/preprocessor_config.json').unlink()
    with pytest.raises(UserError, match=r'preprocessor_config\.json.*mean='):
        teacher(folder, 'random', 'pooled')
    tapped = teacher(folder, 'random', 'pooled', mean=[1, 2, 3], std=[4, 5, 6])
    assert tapped.normalization.mean == (1, 2, 3) and tapped.normalization.std == (4, 5, 6)


def test_pixels_that_are_scaled_and_not_normalised(tmp_path):
    network = AutoModel.from_config(AutoConfig.for_model('dinov2', **DINO))
    processor = ViTImageProcessor(do_normalize=False, size={'height': 32, 'width': 32})
    tapped = teacher(save(network, tmp_path / 'dino', processor), 'pretrained', 'pooled')
    assert tapped.normalization.mean == (0, 0, 0) and tapped.normalization.std == (255, 255, 255)


def test_pickles_are_refused_without_trust(classifier, tmp_path):
    network, folder = classifier
    (tmp_path / 'dino/model.safetensors').unlink()
    torch.save(network.state_dict(), tmp_path / 'dino/pytorch_model.bin')
    with pytest.raises(UserError, match=r'safetensors.*trust=True'):
        teacher(folder, 'pretrained', 'pooled')
    assert teacher(folder, 'pretrained', 'pooled', trust=True).report.loaded


RADIO = """
from typing import NamedTuple
import torch
from transformers import PretrainedConfig, PreTrainedModel


class ToyConfig(PretrainedConfig):
    model_type = 'toy-radio'


class Output(NamedTuple):
    summary: torch.Tensor
    features: torch.Tensor


class ToyModel(PreTrainedModel):
    config_class = ToyConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = torch.nn.Conv2d(3, 8, 16, 16)
        self.post_init()

    def forward(self, pixel_values):
        features = self.embed(pixel_values).flatten(2).transpose(1, 2)
        return Output(features.mean(1), features)
"""


def test_code_that_comes_with_a_model_runs_only_with_trust(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_MODULES_CACHE', str(tmp_path / 'modules'))
    folder = tmp_path / 'toy'
    folder.mkdir()
    (folder / 'toy.py').write_text(RADIO)
    (folder / 'config.json').write_text(
        json.dumps(
            {
                'model_type': 'toy-radio',
                'auto_map': {'AutoConfig': 'toy.ToyConfig', 'AutoModel': 'toy.ToyModel'},
            }
        )
    )
    save_file({'embed.weight': torch.randn(8, 3, 16, 16), 'embed.bias': torch.zeros(8)}, folder / 'model.safetensors',
              {'format': 'pt'})  # fmt: skip
    stats = {'mean': [127.5] * 3, 'std': [127.5] * 3}
    with pytest.raises(UserError, match=r'code.*trust=True'):
        teacher(str(folder), 'pretrained', 'pooled', **stats)
    tapped = teacher(str(folder), 'pretrained', 'pooled', trust=True, **stats)
    images = torch.randn(2, 3, 32, 32)
    weight = load_file(folder / 'model.safetensors')['embed.weight']
    expected = torch.nn.functional.conv2d(images, weight, stride=16).mean((2, 3))
    torch.testing.assert_close(tapped(images)['pooled'], expected, rtol=1e-4, atol=1e-5)


def test_a_folder_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(UserError, match='nowhere'):
        teacher(str(tmp_path / 'nowhere'), 'pretrained', 'pooled')
