"""Models of mmpretrain as teachers, each tap against the library's own calls."""

import pytest
import torch

from vfd.errors import UserError
from vfd.teachers import Teacher

PREPROCESSOR = {'mean': [1.0, 2.0, 3.0], 'std': [4.0, 5.0, 6.0], 'to_rgb': True}
VIT = {
    'type': 'mmpretrain.ImageClassifier',
    'backbone': {
        'type': 'mmpretrain.VisionTransformer', 'img_size': 32, 'patch_size': 16, 'out_type': 'cls_token',
        'arch': {'embed_dims': 16, 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 32},
    },
    'head': {'type': 'mmpretrain.VisionTransformerClsHead', 'num_classes': 3, 'in_channels': 16, 'hidden_dim': 8},
    'data_preprocessor': PREPROCESSOR,
}  # fmt: skip
RESNET = {
    'type': 'mmpretrain.ImageClassifier',
    'backbone': {'type': 'mmpretrain.ResNet_CIFAR', 'depth': 18, 'base_channels': 8, 'stem_channels': 8,
                 'out_indices': (1, 3)},
    'neck': {'type': 'mmpretrain.GlobalAveragePooling'},
    'head': {'type': 'mmpretrain.LinearClsHead', 'num_classes': 3, 'in_channels': 64},
    'data_preprocessor': PREPROCESSOR,
}  # fmt: skip
TIMM = {
    'type': 'mmpretrain.TimmClassifier', 'model_name': 'test_resnet', 'num_classes': 3,
    'data_preprocessor': {'type': 'mmpretrain.ClsDataPreprocessor', **PREPROCESSOR},
}  # fmt: skip


def teacher(model, *taps):
    torch.manual_seed(0)
    return Teacher({'type': 'vfd.MMSource', 'model': model}, 'random', taps=taps)


@pytest.mark.parametrize('model', [VIT, RESNET], ids=['vit', 'resnet'])
@torch.inference_mode()
def test_logits_and_what_their_classifier_reads(model):
    tapped = teacher(model, 'logits', 'pooled')
    images = torch.rand(2, 3, 32, 32)
    answers = tapped(images)
    torch.testing.assert_close(answers['logits'], tapped.network(images, mode='tensor'))
    torch.testing.assert_close(answers['pooled'], tapped.network.extract_feat(images, stage='pre_logits'))
    head = tapped.network.head
    classifier = head.fc if model is RESNET else head.layers.head
    torch.testing.assert_close(classifier(answers['pooled']), answers['logits'])


@torch.inference_mode()
def test_maps_and_the_rest_come_from_one_pass():
    tapped = teacher(RESNET, 'stage.0', 'stage.1', 'logits', 'pooled')
    runs = []
    tapped.network.backbone.conv1.register_forward_hook(lambda *_: runs.append(1))
    images = torch.rand(2, 3, 32, 32)
    answers = tapped(images)
    assert len(runs) == 1
    maps = tapped.network.backbone(images)
    torch.testing.assert_close(answers['stage.0'], maps[0])
    torch.testing.assert_close(answers['stage.1'], maps[1])
    torch.testing.assert_close(answers['logits'], tapped.network(images, mode='tensor'))


@torch.inference_mode()
def test_a_classifier_of_timm():
    tapped = teacher(TIMM, 'logits', 'pooled')
    network = tapped.network.model
    images = torch.rand(2, 3, 32, 32)
    answers = tapped(images)
    torch.testing.assert_close(answers['logits'], network(images))
    features = network.forward_features(images)
    torch.testing.assert_close(answers['pooled'], network.forward_head(features, pre_logits=True))
    assert tapped.num_classes == 3
    with pytest.raises(UserError, match='has the taps'):
        teacher(TIMM, 'stage.0')
