"""A network of timm keeps its weights when training starts, wherever it stands in the model."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from vfd.engine import Runner
from vfd.registry import MODELS

VIT = dict(model_name='vit_tiny_patch16_224', img_size=32, embed_dim=24, depth=1, num_heads=2)
MODELS_WITH_TIMM = {
    'classifier': dict(type='mmpretrain.TimmClassifier', num_classes=3, **VIT),
    'backbone': dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='TIMMBackbone', **VIT),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=24),
    ),
    'student': dict(
        type='vfd.SSLDDistiller',
        student=dict(type='mmpretrain.TimmClassifier', num_classes=3, **VIT),
        teacher=dict(
            type='vfd.Teacher',
            source=dict(type='vfd.TimmSource', model_name='test_efficientnet', num_classes=3),
            checkpoint='random',
        ),
    ),
}


@pytest.mark.parametrize('kind', MODELS_WITH_TIMM)
def test_weights_are_not_drawn_anew(kind, tmp_path):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(MODELS_WITH_TIMM[kind])
    network = next(part for part in model.modules() if hasattr(part, 'pretrained_cfg'))
    with torch.no_grad():
        for parameter in network.parameters():
            nn.init.constant_(parameter, 0.5)
    runner = Runner(model, work_dir=str(tmp_path), experiment_name=f'timm-{kind}', log_level='ERROR')
    runner._init_model_weights()
    assert all((parameter == 0.5).all() for parameter in network.parameters())
