"""The linear depth probe: bins, the class token, metrics, configs, training, resuming and testing."""

from __future__ import annotations

import copy
import functools
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData

from vfd.apis import config as config_api
from vfd.apis import training
from vfd.errors import UserError
from vfd.evaluation import DepthMetric, depth_from_bins, depth_metrics
from vfd.registry import MODELS, PARAM_SCHEDULERS

CONFIGS = Path(__file__).parents[2] / 'configs/ph_reg'
FULL = sorted(path for path in CONFIGS.glob('linear-depth_*.py') if 'tiny' not in path.stem)
TINY = CONFIGS / 'linear-depth_tiny_1xb2-coslr-12i_folder.py'


@functools.cache
def read(path: Path):
    return config_api.load_config(path)


def build(**changes):
    model = copy.deepcopy(read(TINY).model)
    for name, value in changes.items():
        model[name] = value  # not update(), which merges
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        probe = MODELS.build(model)
        probe.init_weights()
        return probe.train()


def sample(depth, **meta):
    from mmseg.structures import SegDataSample

    made = SegDataSample(metainfo={'ori_shape': depth.shape[1:], **meta})
    made.set_data({'gt_depth_map': PixelData(data=depth)})
    return made


@pytest.mark.parametrize('strategy', ['linear', 'softmax', 'sigmoid'])
def test_depth_is_an_expectation(strategy):
    bins = torch.linspace(0.001, 10, 16, dtype=torch.float64)
    flat = depth_from_bins(torch.zeros(2, 16, 3, 4, dtype=torch.float64), bins, strategy)
    torch.testing.assert_close(flat, torch.full((2, 1, 3, 4), bins.mean().item(), dtype=torch.float64))
    logits = 5 * torch.randn(2, 16, 3, 4, dtype=torch.float64)
    depth = depth_from_bins(logits, bins, strategy)
    assert depth.min() > bins[0] and depth.max() < bins[-1]
    order = torch.randperm(16)
    torch.testing.assert_close(depth_from_bins(logits[:, order], bins[order], strategy), depth)


def test_only_the_convolution_trains_and_starts_in_the_middle():
    probe = build()
    assert {n for n, p in probe.named_parameters() if p.requires_grad} == {
        'conv_depth.weight',
        'conv_depth.bias',
    }
    assert not any(module.training for module in probe.backbone.modules())
    images, depth = torch.rand(2, 3, 40, 56), torch.full((1, 40, 56), 3.0)
    assert probe(images).shape == (2, 1, 20, 28)  # a patch of 8, enlarged four times
    losses = probe(images, [sample(depth), sample(depth)], mode='loss')
    assert set(losses) == {'loss_sig', 'loss_gradient'}
    sum(losses.values()).backward()
    assert probe.conv_depth.weight.grad.any() and all(p.grad is None for p in probe.backbone.parameters())
    nothing = probe(images, [sample(0 * depth), sample(0 * depth)], mode='loss')
    assert not any(nothing.values())


@pytest.mark.parametrize('kind', ['vit', 'clip'])
def test_the_class_token_stands_beside_every_patch(kind):
    backbone = read(TINY).model.backbone
    if kind == 'clip':
        backbone = dict(
            type='vfd.RegisterCLIP', model_name='ViT-B-16', num_registers=3, img_size=64, embed_dim=48,
            vision_cfg=dict(layers=2, width=32, head_width=16, patch_size=8), checkpoint='random',
        )  # fmt: skip
    probe = build(backbone=copy.deepcopy(backbone)).eval()
    images = torch.rand(2, 3, 40, 56)
    map_, cls_token = probe.backbone.forward_with_cls(images)
    assert map_.shape == (2, 48, 5, 7) and cls_token.shape == (2, 48)
    torch.testing.assert_close(map_, probe.backbone(images)[0])
    torch.testing.assert_close(cls_token, probe.backbone.network.tokens(images)[:, 0])
    probe.conv_depth.weight.data[:, :48] = 0  # only the class token is read: one depth an image
    depth = probe(images)
    torch.testing.assert_close(depth, depth[:, :, :1, :1].expand_as(depth))


def test_padding_is_cut_off_the_prediction():
    probe = build().eval()
    images = torch.rand(1, 3, 64, 64)
    whole = probe(images, [sample(torch.ones(1, 64, 64))], mode='predict')[0].pred_depth_map.data
    cut = probe(images, [sample(torch.ones(1, 60, 57), img_padding_size=(0, 7, 0, 4))], mode='predict')[0]
    torch.testing.assert_close(cut.pred_depth_map.data, whole[:, :60, :57])


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        (dict(norm_strategy='relu'), 'norm_strategy'),
        (dict(min_depth=0), 'min_depth'),
        (dict(min_depth=11), 'min_depth'),
    ],
)
def test_mistakes(changes, text):
    with pytest.raises(UserError, match=text):
        build(**changes)


def test_backbones_that_do_not_fit():
    with pytest.raises(UserError, match='gives 48 channels, in_channels=32'):
        build(in_channels=32)(torch.rand(1, 3, 64, 64))
    resnet = dict(type='mmseg.ResNet', depth=18, norm_cfg=dict(type='BN'))
    with pytest.raises(UserError, match='ResNet: the class token'):
        build(backbone=resnet)(torch.rand(1, 3, 64, 64))


# -------------------------------------------------------------------------------------------------------- metrics


def test_a_perfect_and_a_scaled_prediction():
    target = 1 + 8 * torch.rand(40, 50, dtype=torch.float64)
    perfect = depth_metrics(target, target)
    assert perfect['a1'] == 1 and perfect['rmse'] == perfect['silog'] == perfect['abs_rel'] == 0
    scaled = depth_metrics(1.3 * target, target)
    assert scaled['a1'] == 0 and scaled['a2'] == 1
    assert scaled['abs_rel'] == pytest.approx(0.3) and scaled['log_10'] == pytest.approx(math.log10(1.3))
    assert scaled['rmse_log'] == pytest.approx(math.log(1.3)) and scaled['silog'] == pytest.approx(
        0, abs=1e-5
    )


def test_pixels_and_images_without_depth_do_not_count():
    target = torch.full((1, 8, 9), 2.0)
    target[:, :4] = 0
    pred = torch.full((1, 8, 9), 2.0)
    pred[:, :4] = 9
    metric = DepthMetric()
    metric.process(None, [_answer(pred, target), _answer(pred, 0 * target), _answer(pred + 1, target)])
    metrics = metric.compute_metrics(metric.results)
    assert metrics['rmse'] == pytest.approx(0.5)  # two images count
    with pytest.raises(UserError, match=r'b\.png is not finite'):
        metric.process(None, [{**_answer(pred * torch.nan, target), 'img_path': 'b.png'}])
    with pytest.raises(UserError, match='none of 1 images'):
        metric.compute_metrics(metric.results[1:2])


def test_the_crop_of_nyu():
    target = torch.full((1, 480, 640), 2.0)
    pred = target.clone()
    pred[:, :45], pred[:, 471:], pred[..., :41], pred[..., 601:] = 9, 9, 9, 9
    metric = DepthMetric(crop='nyu')
    metric.process(None, [_answer(pred, target)])
    assert metric.compute_metrics(metric.results)['a1'] == 1
    with pytest.raises(UserError, match='480 x 640'):
        metric.process(None, [_answer(pred[:, :99], target[:, :99])])
    with pytest.raises(UserError, match='crop="eigen"'):
        DepthMetric(crop='eigen')


def _answer(pred, target):
    return {'pred_depth_map': {'data': pred}, 'gt_depth_map': {'data': target}}


# -------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize('path', FULL, ids=[path.stem for path in FULL])
def test_settings_are_the_published_ones(path):
    cfg = read(path)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 5e-3, 0.01)
    assert cfg.optim_wrapper.clip_grad.max_norm == 35
    assert cfg.train_cfg.max_iters == 30000 and cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr.base_batch_size == 16
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['RandomCrop'].crop_size == (416, 544)
    assert (steps['RandomRotate'].prob, steps['RandomRotate'].degree, steps['RandomRotate'].seg_pad_val) == (
        0.5,
        2.5,
        0,
    )
    assert {'RandomFlip', 'vfd.RandomGammaBrightnessColour'} <= set(steps)
    assert cfg.model.get('legacy_bchw', False) == ('legacy' in path.stem)
    model = copy.deepcopy(cfg.model)
    model.backbone.checkpoint = 'random'
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        probe = MODELS.build(model).eval()
        side = 2 * probe.backbone.network.patch_size
        assert probe(torch.zeros(1, 3, side, side)).shape == (1, 1, 8, 8)
    assert cfg.model.data_preprocessor.size_divisor == probe.backbone.network.patch_size
    assert probe.bins.shape == (256,) and (probe.sig_loss.warm_up_iters, probe.gradient_loss.loss_weight) == (
        100,
        0.5,
    )


def test_learning_rates_over_the_run():
    """mmcv 1.x: a cosine from the first iteration on, times the warm-up."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedules = [
        PARAM_SCHEDULERS.build(config, default_args={'optimizer': optimizer})
        for config in read(FULL[0]).param_scheduler
    ]
    for iteration in range(14001):
        warm_up = 1 - (1 - iteration / 12800) * (1 - 1e-3) if iteration < 12800 else 1.0
        wanted = (1 + math.cos(math.pi * iteration / 30000)) / 2 * warm_up
        if iteration % 100 == 0:
            assert optimizer.param_groups[0]['lr'] == pytest.approx(wanted, rel=1e-9), iteration
        for schedule in schedules:
            schedule.step()


# ------------------------------------------------------------------------------------------------------ the runner


def run(work_dir, resume=False, **options):
    common = {'train_cfg.max_iters': 4, 'train_cfg.val_interval': 4, 'default_hooks.checkpoint.interval': 2}
    common |= {'default_hooks.checkpoint.max_keep_ckpts': 2}
    options = {**common, 'randomness.seed': 3, 'visualizer.vis_backends': [], **options}
    return training.train(TINY, work_dir, options=options, resume=resume)


def test_train_resume_and_test_through_the_runner(depth_small, here):
    whole = run(here / 'whole')
    shown = whole.message_hub.get_scalar('val/depth/rmse').current()
    (here / 'part').mkdir()
    shutil.copy(here / 'whole/iter_2.pth', here / 'part')
    run(here / 'part', resume=str(here / 'part/iter_2.pth'))
    ours, theirs, middle = (
        torch.load(here / name, weights_only=True)['state_dict']
        for name in ('whole/iter_4.pth', 'part/iter_4.pth', 'whole/iter_2.pth')
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert not torch.equal(ours['conv_depth.weight'], middle['conv_depth.weight'])
    assert ours['sig_loss.calls'] == 4
    metrics = training.test(
        TINY, here / 'whole/iter_4.pth', here / 'test', options={'visualizer.vis_backends': []}
    )
    assert metrics['depth/rmse'] == shown and set(metrics) >= {'depth/a1', 'depth/silog', 'depth/sq_rel'}


def test_a_bad_depth_map_is_skipped_and_counted(depth_small, here):
    np.save(depth_small / 'train/depth/0.npy', np.full((70, 90), np.nan, np.float32))
    cv2.imwrite(str(depth_small / 'val/depth/1.png'), np.zeros((70, 90), np.uint16))
    run(here / 'run', **{'train_cfg.max_iters': 3, 'train_cfg.val_interval': 3})
    record = (here / 'run/bad_data.txt').read_text()
    assert 'train/images/0.png' in record and 'NaN' in record and 'val/images/1.png' in record
