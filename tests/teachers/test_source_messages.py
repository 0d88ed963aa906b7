"""What every source says of a missing classifier, a wrong image size and classes that published weights lack."""

import pytest
import timm
import torch

from vfd.errors import UserError
from vfd.teachers import Teacher

MIXER = {'type': 'mmpretrain.MlpMixer', 'arch': {'embed_dims': 16, 'num_layers': 1, 'tokens_mlp_dims': 8,
         'channels_mlp_dims': 8}, 'img_size': 32, 'patch_size': 16}  # fmt: skip
STATISTICS = {'mean': [1, 2, 3], 'std': [4, 5, 6]}
PREPROCESSOR = {'data_preprocessor': {'type': 'mmseg.SegDataPreProcessor', **STATISTICS}}
SEGMENTOR = {
    'type': 'mmseg.EncoderDecoder', **PREPROCESSOR,
    'backbone': {'type': 'mmpretrain.MlpMixer', **{k: v for k, v in MIXER.items() if k != 'type'}},
    'decode_head': {'type': 'mmseg.FCNHead', 'in_channels': 16, 'channels': 8, 'num_classes': 3, 'in_index': 0},
}  # fmt: skip


@pytest.mark.parametrize(
    ('source', 'tap'),
    [
        (
            {'type': 'vfd.TimmSource', 'model_name': 'test_vit', 'img_size': 32, 'dynamic_img_size': False},
            'block.0',
        ),
        ({'type': 'vfd.MMSource', 'model': MIXER, **STATISTICS}, 'stage.0'),
        ({'type': 'vfd.MMSegSource', 'model': SEGMENTOR}, 'seg_logits'),
        ({'type': 'vfd.MAESource', 'embed_dim': 32, 'depth': 1, 'num_heads': 2, 'img_size': 32}, 'latent'),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else value,
)
def test_images_of_another_size(source, tap):
    teacher = Teacher(source, 'random', taps=(tap,))
    with pytest.raises(UserError) as error:
        teacher(torch.rand(1, 3, 48, 64))
    for fact in ('32x32', '48x64', 'input_size=32', 'img_size='):
        assert fact in str(error.value)


def test_a_size_between_patches_has_no_network_of_its_own():
    source = {'type': 'vfd.TimmSource', 'model_name': 'vit_tiny_patch16_dinov3_qkvb', 'depth': 1}
    with pytest.raises(UserError, match=r'50x50.*input_size=256') as error:
        Teacher(source, 'random', taps=('block.0',))(torch.rand(1, 3, 50, 50))
    assert 'img_size=' not in str(error.value)


def test_other_errors_stay_what_they_are():
    teacher = Teacher(
        {'type': 'vfd.TimmSource', 'model_name': 'test_vit', 'img_size': 32}, 'random', taps=('block.0',)
    )
    with pytest.raises(RuntimeError, match='channels'):
        teacher.source.forward_taps(torch.rand(1, 4, 32, 32), ('block.0',))


@pytest.mark.parametrize(
    'source',
    [
        {'type': 'vfd.TimmSource', 'model_name': 'test_resnet', 'num_classes': 0},
        {'type': 'vfd.OpenCLIPSource', 'model_name': 'RN50'},
        {'type': 'vfd.MMSource', 'model': {'type': 'mmpretrain.ImageClassifier', 'backbone': MIXER, 'neck': {
            'type': 'mmpretrain.GlobalAveragePooling', 'dim': 1}}},
    ],
    ids=lambda value: value['type'],
)  # fmt: skip
def test_logits_of_a_network_without_a_classifier(source):
    with pytest.raises(UserError, match=r'"logits".*no classifier.*"pooled"'):
        Teacher(source, 'random', taps=('logits',))


def test_classes_are_compared_before_anything_is_downloaded(monkeypatch):
    def create_model(*args, **kwargs):
        raise AssertionError('the network is built, and its weights fetched')

    monkeypatch.setattr(timm, 'create_model', create_model)
    source = {'type': 'vfd.TimmSource', 'model_name': 'resnet18.a1_in1k', 'num_classes': 10}
    with pytest.raises(UserError, match=r'1000 classes.*num_classes=10.*"pooled"'):
        Teacher(source, 'pretrained', taps=('logits',))
    unlabelled = {'type': 'vfd.TimmSource', 'model_name': 'vit_small_patch16_dinov3.lvd1689m'}
    with pytest.raises(UserError, match=r'no classifier.*"pooled"'):
        Teacher(unlabelled, 'pretrained', taps=('logits',))
