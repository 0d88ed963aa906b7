"""The linear segmentation probe: what trains, its loss without labels, configs, training and testing."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData

from vfd.apis import config as config_api
from vfd.apis import training
from vfd.errors import UserError
from vfd.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs/ph_reg'
FULL = sorted(path for path in CONFIGS.glob('linear-seg_*.py') if 'tiny' not in path.stem)
TINY = CONFIGS / 'linear-seg_tiny_1xb4-polylr-20i_folder-64px.py'


@functools.cache
def read(path: Path):
    return config_api.load_config(path)


@pytest.fixture
def probe():
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy(read(TINY).model))
        model.init_weights()
        return model.train()


def batch(labels: torch.Tensor):
    from mmseg.structures import SegDataSample

    images = torch.rand(len(labels), 3, *labels.shape[1:], generator=torch.Generator().manual_seed(1))
    return images, [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]


def test_only_batch_norm_and_the_convolution_train(probe):
    trained = {name for name, parameter in probe.named_parameters() if parameter.requires_grad}
    assert trained == {
        f'decode_head.{part}' for part in ('bn.weight', 'bn.bias', 'conv_seg.weight', 'conv_seg.bias')
    }
    assert not any(module.training for module in probe.backbone.modules()) and probe.decode_head.training
    before = {name: value.clone() for name, value in probe.backbone.state_dict().items()}
    optimizer = torch.optim.AdamW(probe.parameters(), lr=0.1)
    losses = probe.loss(*batch(torch.randint(0, 3, (2, 64, 64))))
    losses['decode.loss_ce'].backward()
    optimizer.step()
    assert all(value.equal(before[name]) for name, value in probe.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in probe.backbone.parameters())


def test_pixels_without_label_count_in_the_average_and_a_batch_without_any_costs_nothing(probe):
    labels = torch.randint(0, 3, (2, 64, 64))
    whole = probe.loss(*batch(labels))['decode.loss_ce']
    assert whole > 0
    half = labels.clone()
    half[1] = 255
    images, _ = batch(labels)
    _, samples = batch(half)
    logits = probe.decode_head(probe.extract_feat(images))
    first = probe.decode_head.loss_by_feat(logits[:1], samples[:1])['loss_ce']
    both = probe.decode_head.loss_by_feat(logits, samples)['loss_ce']
    torch.testing.assert_close(both, first / 2)
    nothing = probe.loss(*batch(torch.full((2, 64, 64), 255)))
    nothing['decode.loss_ce'].backward()
    assert nothing['decode.loss_ce'] == 0
    assert all(p.grad.isfinite().all() and not p.grad.any() for p in probe.decode_head.parameters())


def test_a_map_of_other_width_is_named(probe):
    with pytest.raises(UserError, match=r'in_channels=48.* 5 channels'):
        probe.decode_head((torch.rand(1, 5, 2, 2),))


@pytest.mark.parametrize('path', FULL, ids=[path.stem for path in FULL])
def test_settings_are_the_published_ones(path):
    cfg = read(path)
    side = 448 if 'clip' in path.stem else 518
    iterations, classes = (20000, 21) if 'voc12' in path.stem else (40000, 150)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-3, 1e-4)
    (schedule,) = cfg.param_scheduler
    assert (schedule.type, schedule.power, schedule.eta_min, schedule.end) == ('PolyLR', 0.9, 0, iterations)
    assert cfg.train_cfg.max_iters == iterations and cfg.train_dataloader.batch_size == 8
    head = cfg.model.decode_head
    assert head.num_classes == classes and head.norm_cfg.type == 'SyncBN'
    assert head.loss_decode.avg_non_ignore is False
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['RandomResize'].scale == (2048, side) and steps['RandomResize'].ratio_range == (0.5, 2.0)
    assert steps['RandomCrop'].crop_size == (side, side) and steps['RandomCrop'].cat_max_ratio == 0.75
    assert {'RandomFlip', 'PhotoMetricDistortion'} <= set(steps)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.pipeline[1].scale == (2048, side)
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(side, side), stride=(341, 341))
    model = copy.deepcopy(cfg.model)
    model.backbone.checkpoint = 'random'
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        probe = MODELS.build(model).eval()
        logits = probe(torch.zeros(1, 3, side, side), mode='tensor')
    assert logits.shape == (
        1,
        classes,
        side // probe.backbone.network.patch_size,
        side // probe.backbone.network.patch_size,
    )


def test_train_and_test_through_the_runner(seg_small, here):
    options = {'train_cfg.max_iters': 6, 'train_cfg.val_interval': 6, 'default_hooks.checkpoint.interval': 6}
    options |= {'randomness.seed': 0, 'visualizer.vis_backends': []}
    runner = training.train(TINY, here / 'run', options=options)
    shown = runner.message_hub.get_scalar('val/mIoU').current()
    losses = [float(value) for value in runner.message_hub.get_scalar('train/decode.loss_ce').data[0]]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    metrics = training.test(TINY, here / 'run/iter_6.pth', here / 'test', options=options)
    assert metrics['mIoU'] == shown

    state = torch.load(here / 'run/iter_6.pth', weights_only=True)
    state['state_dict'].pop('backbone.network.blocks.1.mlp.fc2.bias')
    torch.save(state, here / 'half.pth')
    with pytest.raises(UserError, match=r'lacks 1 of .*blocks\.1\.mlp\.fc2\.bias'):
        training.test(TINY, here / 'half.pth', here / 'test', options=options)
