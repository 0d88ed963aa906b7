"""Plain distillation: its terms, its settings, equality with DisWOT without relations, a moment of training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample

from vfd.apis.training import train
from vfd.errors import UserError
from vfd.losses import DKDLoss, KLDivLogitLoss, kl
from vfd.registry import MODELS

CONFIG = Path(__file__).parents[2] / 'configs/kd/kd-standardized_tiny_1xb8-2e_folder.py'
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
BOTH = pytest.mark.parametrize('student', [STUDENT, MM_STUDENT], ids=['timm', 'mmpretrain'])
PREPROCESSOR = dict(type='mmpretrain.ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
LABELS = torch.tensor([0, 1, 2, 4])


def build(type: str = 'vfd.KD', **settings):
    torch.manual_seed(0)
    settings = {'student': STUDENT, 'teacher': TEACHER, 'data_preprocessor': PREPROCESSOR, **settings}
    return MODELS.build(dict(type=type, **settings)).train()


def batch() -> tuple[torch.Tensor, list[DataSample]]:
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return images, [DataSample().set_gt_label(label) for label in LABELS]


@BOTH
@pytest.mark.parametrize(
    ('settings', 'loss'),
    [
        (dict(), lambda s, t: kl(s, t, 4.0)),
        (dict(standardize=True, temperature=2.0), KLDivLogitLoss(2.0)),
        (dict(standardize=True, unbiased=False, eps=1e-3), KLDivLogitLoss(4.0, unbiased=False, eps=1e-3)),
        (
            dict(standardize=True, decoupled=dict(beta=3.0, warmup_epochs=0)),
            lambda s, t: DKDLoss(4.0, alpha=1.0, beta=3.0)(s, t, LABELS),
        ),
        (
            dict(decoupled=dict(alpha=2.0, warmup_epochs=0)),
            lambda s, t: DKDLoss(4.0, alpha=2.0, beta=8.0, standardize=False)(s, t, LABELS),
        ),
    ],
    ids=['plain', 'standardized', 'biased', 'decoupled', 'decoupled plain'],
)
def test_both_terms_are_the_formulas_and_the_student_alone_learns(student, settings, loss):
    model = build(student=student, ce_weight=0.5, kd_weight=3.0, **settings)
    images, samples = batch()
    losses = model(images, samples, mode='loss')
    student_logits, teacher_logits = model.student(images), model.teacher(images)['logits']
    expected = {
        'loss_ce': 0.5 * F.cross_entropy(student_logits, LABELS),
        'loss_kd': 3.0 * loss(student_logits, teacher_logits),
    }
    assert set(losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=1e-7)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.student.parameters())
    assert all(p.grad is None for p in model.teacher.network.parameters())
    assert all(name.startswith('student.') for name in model.state_dict())


@BOTH
def test_the_loss_is_that_of_diswot_without_relations(student):
    """The baseline of DisWOT's configs, to the last bit, with the default weights and with others."""
    for weights in (dict(), dict(ce_weight=0.3, kd_weight=2.0, temperature=3.0)):
        kd, diswot = (build(type, student=student, **weights) for type in ('vfd.KD', 'vfd.DisWOT'))
        diswot.load_state_dict(kd.state_dict())
        diswot.teacher.network.load_state_dict(kd.teacher.network.state_dict())
        losses, others = kd.loss(*batch()), diswot.loss(*batch())
        assert losses.keys() == others.keys() == {'loss_ce', 'loss_kd'}
        assert all(losses[name].equal(others[name]) for name in losses)


def test_terms_without_weight_are_left_out(monkeypatch):
    assert set(build(ce_weight=0).loss(*batch())) == {'loss_kd'}
    model = build(kd_weight=0, ce_weight=1)
    monkeypatch.setattr(model, 'teacher', None)
    assert set(model.loss(*batch())) == {'loss_ce'}


def test_the_scale_of_the_teachers_logits_does_not_count_when_standardised():
    model = build(standardize=True)
    before = model.loss(*batch())['loss_kd']
    with torch.no_grad():
        for parameter in model.teacher.network.fc.parameters():
            parameter.mul_(10)
    torch.testing.assert_close(model.loss(*batch())['loss_kd'], before, rtol=1e-4, atol=0)


def test_mixed_labels(monkeypatch):
    """The classification loss sees the scores, DKD their largest class."""
    settings = dict(standardize=True, decoupled=dict(warmup_epochs=0))
    model, (images, samples) = build(**settings), batch()
    plain = model.loss(images, samples)
    scores = torch.full((4, 5), 0.1).scatter(1, LABELS[:, None], 0.6)
    for sample, score in zip(samples, scores, strict=True):
        sample.set_gt_score(score)
    mixed = model.loss(images, samples)
    assert mixed['loss_kd'].equal(plain['loss_kd'])
    torch.testing.assert_close(mixed['loss_ce'], 0.1 * F.cross_entropy(model.student(images), scores))


def test_decoupled_distillation_warms_up_over_epochs(monkeypatch):
    info = {}
    monkeypatch.setattr(MessageHub, 'get_current_instance', lambda: hub)
    hub = type('Hub', (), {'get_info': lambda self, name, default=None: info.get(name, default)})()
    model = build(decoupled=dict(warmup_epochs=4))
    full = build(decoupled=dict(warmup_epochs=0))
    whole = full.loss(*batch())['loss_kd']
    for epoch, factor in ((0, 0.25), (1, 0.5), (3, 1.0), (100, 1.0)):
        info.update(epoch=epoch, max_epochs=240)
        torch.testing.assert_close(model.loss(*batch())['loss_kd'], factor * whole)
    info.update(epoch=0, max_epochs=1)
    with pytest.raises(UserError, match=r'warmup_epochs=4.*by_epoch=True'):
        model.loss(*batch())


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(ce_weight=0, kd_weight=0), 'both 0'),
        (dict(temperature=0), 'temperature=0'),
        (dict(unbiased=False), 'standardize=True'),
        (dict(student={**STUDENT, 'num_classes': 6}), 'student has 6 classes, the teacher 5'),
        (dict(decoupled=True), r'decoupled=True is no dict.*alpha'),
        (dict(decoupled=dict(betta=1.0)), 'did you mean "beta"'),
        (dict(decoupled=dict(alpha='1')), "alpha='1'"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


def test_two_classes_are_refused_when_standardised():
    student = {**STUDENT, 'num_classes': 2}
    teacher = {**TEACHER, 'source': {**TEACHER['source'], 'num_classes': 2}}
    images, _ = batch()
    samples = [DataSample().set_gt_label(0)] * 4
    with pytest.raises(UserError, match='standardize=False'):
        build(student=student, teacher=teacher, standardize=True).loss(images, samples)
    with pytest.warns(UserWarning, match='2 classes'):
        build(student=student, teacher=teacher, standardize=True, allow_binary=True).loss(images, samples)


def test_the_loss_serves_ssld_without_labels():
    loss = dict(type='vfd.KLDivLogitLoss', temperature=2.0)
    model = build('vfd.SSLDDistiller', distill_loss=loss, teacher_bn='eval')
    images, samples = batch()
    expected = KLDivLogitLoss(2.0)(model.student(images), model.teacher(images)['logits'])
    torch.testing.assert_close(model.loss(images, samples)['loss_ssld'], expected)


@pytest.mark.parametrize('more', [{}, {'model.decoupled.warmup_epochs': 2}], ids=['kd', 'dkd'])
def test_student_and_labels_train_a_moment_with_the_small_config(tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part in ('train', 'val'):
        for label in range(10):
            target = tmp_path / 'data/folder' / part / f'class{label}'
            target.mkdir(parents=True)
            cv2.imwrite(str(target / '0.png'), rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    runner = train(CONFIG, tmp_path / 'out', options={'visualizer.vis_backends': [], **more})
    scalars = runner.message_hub.log_scalars
    for name in ('loss_ce', 'loss_kd'):
        assert np.isfinite(scalars[f'train/{name}'].current()) and scalars[f'train/{name}'].current() > 0
    assert 0 <= scalars['val/accuracy/top1'].current() <= 100
    state = torch.load(next((tmp_path / 'out').glob('*.pth')), weights_only=True)['state_dict']
    assert 'student.layer3.0.conv2.weight' in state and all(name.startswith('student.') for name in state)
