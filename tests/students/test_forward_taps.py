"""A student's features at taps: equal to what its library computes, from one forward pass."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.students import check_same_classes, forward_taps, num_classes

VIT = dict(model_name='test_vit', img_size=32, patch_size=8, num_classes=5)
MM = dict(
    type='mmpretrain.ImageClassifier', _scope_='mmpretrain',
    backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, out_indices=(1, 3)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
)  # fmt: skip
BACKBONE = dict(type='mmdet.ResNet', depth=18, base_channels=8, norm_eval=False)
SEGMENTOR = dict(
    type='mmseg.EncoderDecoder', _scope_='mmseg',
    backbone=dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=8),
    decode_head=dict(type='FCNHead', in_channels=64, channels=8, num_convs=1, num_classes=4, norm_cfg=dict(type='BN')),
    train_cfg=dict(), test_cfg=dict(mode='whole'),
)  # fmt: skip
DETECTOR = dict(
    type='mmdet.FasterRCNN', _scope_='mmdet',
    backbone=dict(type='ResNet', depth=18, base_channels=8),
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
    rpn_head=dict(type='RPNHead', in_channels=8, feat_channels=8),
    roi_head=None, train_cfg=None, test_cfg=dict(rpn=None),
)  # fmt: skip


def build(config: dict) -> nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(config.get('_scope_', 'mmpretrain')):
        model = MODELS.build(ConfigDict(copy.deepcopy(config)))
    model.eval()
    return model  # some of mmdet's train() return nothing


def images(size: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def close(actual: dict, expected: dict) -> None:
    assert list(actual) == list(expected)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('wrapped', [True, False])
@pytest.mark.parametrize('name', ['test_resnet', 'test_efficientnet', 'test_convnext', 'resnet10t'])
def test_convolutional_networks_of_timm(name, wrapped):
    torch.manual_seed(0)
    student = build(dict(type='mmpretrain.TimmClassifier', model_name=name, num_classes=5))
    network = student.model
    x = images()
    maps = network.forward_intermediates(x, intermediates_only=True)
    features = network.forward_features(x)
    taps = ['stage.-1', 'logits', 'stage.1', 'pooled']
    expected = [maps[-1], network(x), maps[1], network.forward_head(features, pre_logits=True)]
    close(forward_taps(student if wrapped else network, x, taps), dict(zip(taps, expected, strict=True)))


def test_transformers_of_timm_give_tokens_and_maps():
    network = timm.create_model(**VIT).eval()
    x = images()
    tokens = {}
    for k, block in enumerate(network.blocks):
        block.register_forward_hook(lambda _, __, output, k=k: tokens.setdefault(k, output))
    logits = network(x)
    last = len(network.blocks) - 1
    as_map = tokens[last][:, network.num_prefix_tokens :].transpose(1, 2).unflatten(2, (4, 4))
    expected = {'block.0': tokens[0], 'stage.-1': as_map, f'block.{last}': tokens[last], 'logits': logits}
    close(forward_taps(network, x, list(expected)), expected)


def test_classifiers_of_mmpretrain():
    model, x = build(MM), images(64)
    maps = model.backbone(x)
    expected = {
        'stage.0': maps[0],
        'pooled': model.extract_feat(x)[-1],
        'logits': model(x, mode='tensor'),
        'stage.-1': maps[1],
    }
    close(forward_taps(model, x, list(expected)), expected)


def test_detectors_and_segmentors():
    model, x = build(DETECTOR), images(64)
    levels = model.extract_feat(x)
    expected = {'neck.1': levels[1], 'rpn.4': model.rpn_head(levels)[0][4], 'stage.0': model.backbone(x)[0]}
    close(forward_taps(model, x, list(expected)), expected)
    model = build(SEGMENTOR)
    close(forward_taps(model, x, ['seg_logits']), {'seg_logits': model(x, mode='tensor')})


def test_backbones_and_networks_of_vfd():
    model, x = build(BACKBONE), images(64)
    close(forward_taps(model, x, ['stage.2']), {'stage.2': model(x)[2]})
    model = build(dict(type='vfd.MaskedViT', img_size=64, patch_size=16, embed_dim=24, depth=2, num_heads=2))
    latent, blocks = model.forward_tokens(x, None, [0])
    close(forward_taps(model, x, ['block.0', 'cls']), {'block.0': blocks[0], 'cls': latent[:, 0]})
    close(forward_taps(model, x, ['block.0']), {'block.0': blocks[0]})


def test_gradients_flow_and_the_network_runs_once():
    student = build(dict(type='mmpretrain.TimmClassifier', model_name='test_resnet', num_classes=5)).train()
    calls = []
    student.model.conv1.register_forward_hook(lambda *_: calls.append(1))
    features = forward_taps(student, images(), ['logits', 'stage.-1', 'pooled'])
    sum(value.sum() for value in features.values()).backward()
    assert len(calls) == 1
    assert all(parameter.grad is not None for parameter in student.parameters())


class Own(nn.Module):
    def forward_taps(self, inputs, taps):
        return {'bev': inputs['points'].mean(1)}


def test_a_network_may_answer_for_itself():
    inputs = {'points': torch.randn(2, 7, 3)}
    close(forward_taps(Own(), inputs, ['bev']), {'bev': inputs['points'].mean(1)})
    with pytest.raises(UserError, match=r'Own has no features at pooled.*bev'):
        forward_taps(Own(), inputs, ['pooled'])


@pytest.mark.parametrize(
    ('student', 'tap', 'message'),
    [
        (lambda: timm.create_model('test_resnet'), 'stage.9', r'stage\.9.*stage\.0 to stage'),
        (lambda: timm.create_model('test_resnet'), 'stage.x', r'stage\.x'),
        (lambda: timm.create_model('test_resnet'), 'rpn.0', r'no features at rpn\.0'),
        (lambda: nn.Linear(3, 3), 'logits', r'Linear.*forward_taps'),
        (lambda: build(DETECTOR), 'logits', r'FasterRCNN has no features at logits'),
    ],
)
def test_what_a_student_does_not_have_is_refused(student, tap, message):
    with pytest.raises(UserError, match=message):
        forward_taps(student(), images(64), [tap])


class Classes:
    def __init__(self, number):
        self.num_classes = number


def test_numbers_of_classes():
    timm_student = build(dict(type='mmpretrain.TimmClassifier', model_name='test_resnet', num_classes=5))
    assert [num_classes(model) for model in (timm_student, build(MM), build(SEGMENTOR), nn.Linear(1, 1))] == [
        5,
        5,
        4,
        None,
    ]
    check_same_classes('it', timm_student, Classes(5))
    check_same_classes('it', timm_student, Classes(None))
    with pytest.raises(UserError, match=r'it: .*5 classes.*teacher 7.*num_classes=7'):
        check_same_classes('it', timm_student, Classes(7))
