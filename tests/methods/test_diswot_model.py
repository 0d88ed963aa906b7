"""The distillers of DisWOT: terms and gradients, teachers from RepDistiller's files, configs, a moment of training."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample

from vfd.apis.config import load_config
from vfd.apis.training import train
from vfd.errors import UserError
from vfd.losses.feature_maps import channel_correlation
from vfd.losses.sample_relations import similarity_preserving
from vfd.losses.soft_label import kl
from vfd.registry import MODELS
from vfd.students import forward_taps

CONFIGS = Path(__file__).parents[2] / 'configs/diswot'
FILES = sorted(CONFIGS.glob('*.py'))
FULL = [path for path in FILES if path.stem.endswith('240e_cifar100')]
TEACHER = dict(
    type='vfd.Teacher',
    source=dict(type='vfd.TimmSource', model_name='cifar_resnet14', num_classes=5),
    checkpoint='random',
)
STUDENT = dict(type='mmpretrain.TimmClassifier', model_name='cifar_resnet8', num_classes=5)
MM_STUDENT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='mmpretrain.ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8, out_indices=(3,)
    ),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=64),
)
PREPROCESSOR = dict(type='mmpretrain.ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
BOTH = dict(
    relation_loss=dict(type='vfd.RelationLoss', loss_weight=3000.0),
    channel_loss=dict(type='vfd.ChannelCorrelationLoss', loss_weight=2.0),
)


def build(**settings):
    settings = {'student': STUDENT, 'teacher': TEACHER, 'data_preprocessor': PREPROCESSOR, **settings}
    return MODELS.build(dict(type='vfd.DisWOT', **settings)).train()


def batch() -> tuple[torch.Tensor, list[DataSample]]:
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return images, [DataSample().set_gt_label(i) for i in (0, 1, 2, 4)]


@pytest.mark.parametrize('student', [STUDENT, MM_STUDENT], ids=['timm', 'mmpretrain'])
def test_every_term_is_the_formula_and_the_student_alone_learns(student):
    model = build(student=student, **BOTH)
    images, samples = batch()
    losses = model(images, samples, mode='loss')
    taught = model.teacher(images)
    if student is STUDENT:
        features = model.student.model.stage_maps(images)[-1]
        logits = model.student.model(images)
    else:
        maps = model.student.extract_feat(images, stage='backbone')
        features, logits = maps[-1], model.student.head(model.student.neck(maps))
    labels = torch.tensor([0, 1, 2, 4])
    expected = {
        'loss_ce': 0.1 * F.cross_entropy(logits, labels),
        'loss_kd': 0.9 * kl(logits, taught['logits'], 4.0),
        'loss_relation': 3000 * similarity_preserving(features, taught['stage.-1']),
        'loss_channel': 2 * channel_correlation(features, taught['stage.-1']),
    }
    assert set(losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.student.parameters())
    assert all(p.grad is None for p in model.teacher.network.parameters())
    assert all(name.startswith('student.') for name in model.state_dict())


@pytest.mark.parametrize(
    'name', ['cifar_resnet8', 'test_efficientnet', 'test_vit', 'swin_tiny_patch4_window7_224']
)
def test_a_network_with_itself_has_nothing_to_learn(name):
    """Student and teacher are compared at the same place: the last stage, without prefix tokens."""
    size = dict(img_size=64, embed_dim=24) if name.startswith('swin') else {}
    size = dict(img_size=32, patch_size=8) if name == 'test_vit' else size
    arguments = dict(model_name=name, num_classes=5, **size)
    teacher = {**TEACHER, 'source': dict(type='vfd.TimmSource', **arguments)}
    student = dict(type='mmpretrain.TimmClassifier', **arguments)
    cfg = timm.create_model(**arguments).pretrained_cfg
    own = {key: [255 * value for value in cfg[key]] for key in ('mean', 'std')}  # what both were made for
    model = build(student=student, teacher=teacher, data_preprocessor={**PREPROCESSOR, **own}, **BOTH).eval()
    model.student.model.load_state_dict(model.teacher.network.state_dict())
    images = torch.randn(3, 3, size.get('img_size', 32), size.get('img_size', 32))
    features = forward_taps(model.student, images, ['logits', 'stage.-1'])
    target = model.teacher(images)
    assert features['stage.-1'].ndim == 4
    torch.testing.assert_close(features, target)
    losses = model.loss(images, [DataSample().set_gt_label(0)] * 3)
    for term in ('loss_kd', 'loss_relation', 'loss_channel'):
        assert abs(float(losses[term])) < 1e-4, term


@pytest.mark.parametrize(
    ('settings', 'terms'),
    [
        (dict(), {'loss_ce', 'loss_kd'}),
        (dict(kd_weight=0, ce_weight=1), {'loss_ce'}),
        (dict(kd_weight=0, ce_weight=0, **BOTH), {'loss_relation', 'loss_channel'}),
    ],
)
def test_terms_without_weight_are_left_out(settings, terms, monkeypatch):
    model = build(**settings)
    if terms == {'loss_ce'}:
        monkeypatch.setattr(model, 'teacher', None)
    assert set(model.loss(*batch())) == terms


def test_widths_may_differ_for_relations_and_not_for_channels():
    narrow = {**STUDENT, 'width': 8}
    relation = build(student=narrow, relation_loss=BOTH['relation_loss'])
    assert relation.loss(*batch())['loss_relation'] > 0
    with pytest.raises(UserError, match='channel by channel'):
        build(student=narrow, **BOTH).loss(*batch())


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(temperature=0), 'temperature=0 must be positive'),
        (dict(ce_weight=0, kd_weight=0), 'nothing to train on'),
        (dict(student={**STUDENT, 'num_classes': 6}), 'the student has 6 classes, the teacher 5'),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


@pytest.mark.parametrize('depth', [20, 32])
def test_teachers_load_from_files_in_repdistillers_layout(tmp_path, depth):
    """``{model: state_dict}``; every tensor is needed."""
    network = timm.create_model(f'cifar_resnet{depth}', num_classes=5)
    blocks = (depth - 2) // 6
    names = set(network.state_dict())
    expected = {'conv1.weight', 'bn1.running_var', f'layer3.{blocks - 1}.conv2.weight', 'fc.bias'}
    assert expected | {'layer2.0.downsample.0.weight', 'layer3.0.downsample.1.bias'} <= names
    torch.save({'epoch': 240, 'accuracy': 70.0, 'model': network.state_dict()}, tmp_path / 'teacher.pth')
    source = {**TEACHER['source'], 'model_name': f'cifar_resnet{depth}'}
    teacher = MODELS.build({**TEACHER, 'source': source, 'checkpoint': str(tmp_path / 'teacher.pth')})
    images = batch()[0]
    torch.testing.assert_close(teacher(images)['logits'], network.eval()(images))
    assert len(teacher.report.loaded) == len(names)

    state = network.state_dict()
    state.pop('layer1.0.conv1.weight')
    torch.save({'model': state}, tmp_path / 'half.pth')
    with pytest.raises(UserError, match=r'layer1\.0\.conv1\.weight'):
        MODELS.build({**TEACHER, 'source': source, 'checkpoint': str(tmp_path / 'half.pth')})


@pytest.mark.parametrize('path', FULL, ids=[path.stem for path in FULL])
def test_settings_are_the_published_ones(path):
    cfg = load_config(path)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (
        'SGD',
        0.05,
        0.9,
        5e-4,
    )
    assert cfg.train_cfg.max_epochs == 240 and cfg.param_scheduler.milestones == [150, 180, 210]
    assert cfg.param_scheduler.gamma == 0.1
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 64
    assert (cfg.model.ce_weight, cfg.model.kd_weight, cfg.model.temperature) == (0.1, 0.9, 4.0)
    assert cfg.model.relation_loss.loss_weight == 3000 and cfg.model.channel_loss.loss_weight == 1
    teacher = re.search(r'_resnet(\d+)_1xb64', path.stem)[1]
    assert (
        cfg.model.teacher.source.model_name == f'cifar_resnet{teacher}'
        and teacher in cfg.model.teacher.checkpoint
    )
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        student = MODELS.build(cfg.model.student)
        assert student(torch.zeros(2, 3, 32, 32), mode='tensor').shape == (2, 100)


def test_the_metafile_names_every_full_scale_training():
    metafile = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())
    assert {Path(model['Config']) for model in metafile['Models']} == {
        path.relative_to(CONFIGS.parents[1]) for path in FULL
    }
    for model in metafile['Models']:
        assert model['Name'] == Path(model['Config']).stem
        assert 'Results' not in model  # of these pairs none is published


def test_cifar_images_reach_the_teacher_in_its_own_channel_order():
    """mmpretrain's CIFAR images are RGB; the pipeline turns them for vfd, whose loaders give BGR."""
    from mmpretrain.registry import TRANSFORMS

    cfg = load_config(FULL[0])
    steps = [TRANSFORMS.build(step) for step in cfg.val_dataloader.dataset.pipeline[:-1]]
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 200  # red
    results = {'img': image}
    for step in steps:
        results = step(results)
    assert results['img'].shape == (4, 4, 3)
    assert (results['img'][..., 2] == 200).all() and not results['img'][..., 0].any()


def test_student_and_losses_train_a_moment_with_the_small_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part in ('train', 'val'):
        for label in range(10):
            target = tmp_path / 'data/folder' / part / f'class{label}'
            target.mkdir(parents=True)
            cv2.imwrite(str(target / '0.png'), rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    options = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1, 'visualizer.vis_backends': []}
    runner = train(CONFIGS / 'diswot_tiny_1xb8-2e_folder.py', tmp_path / 'out', options=options)
    scalars = runner.message_hub.log_scalars
    for name in ('loss_ce', 'loss_kd', 'loss_relation', 'loss_channel'):
        assert np.isfinite(scalars[f'train/{name}'].current())
    assert 0 <= scalars['val/accuracy/top1'].current() <= 100
    state = torch.load(next((tmp_path / 'out').glob('*.pth')), weights_only=True)['state_dict']
    assert 'student.layer3.0.conv2.weight' in state and all(name.startswith('student.') for name in state)
