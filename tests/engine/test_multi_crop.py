"""Epoch accounting with several crops of an image, its learning rates, and exact resume in the middle of a pass."""

import math
import signal

import pytest
import torch
from mmengine.hooks import Hook
from timm.scheduler import CosineLRScheduler
from torch.utils.data import Dataset

from vfd.engine import Runner, WarmupCosineByEpoch, crop_passes
from vfd.errors import UserError


@pytest.mark.parametrize(
    ('epochs', 'crops', 'warmup', 'expected'),
    [
        (10, 3, 0, [(0, 3), (3, 3), (6, 3), (9, 1)]),
        (9, 3, 0, [(0, 3), (3, 3), (6, 1), (7, 1), (8, 1)]),
        (8, 4, 2, [(0, 1), (1, 1), (2, 4), (6, 1), (7, 1)]),
        (3, 4, 0, [(0, 1), (1, 1), (2, 1)]),
        (3, 1, 0, [(0, 1), (1, 1), (2, 1)]),
    ],
)
def test_passes(epochs, crops, warmup, expected):
    passes = crop_passes(epochs, crops, warmup)
    assert passes == expected
    assert sum(each.crops for each in passes) >= epochs


def test_the_transformer_schedule_is_timms():
    """Stepped with e + crops after every pass, as FKD's script steps timm's own scheduler."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    ours = WarmupCosineByEpoch(optimizer, warmup=5, warmup_start=5e-3, eta_min_ratio=5e-3, end=30)
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    timms = CosineLRScheduler(other, t_initial=30, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-5)
    for each in crop_passes(30, 4, 5):
        expected = other.param_groups[0]['lr']
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        for _ in range(each.crops):
            ours.step()
        timms.step(each.epoch + each.crops)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'by_epoch': False, 'end': 3}, 'by epoch'),
        ({}, 'end'),
        ({'end': 3, 'warmup': -1}, 'warmup=-1'),
        ({'end': 3, 'eta_min_ratio': 2.0}, 'between 0 and 1'),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(settings, message):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(UserError, match=message):
        WarmupCosineByEpoch(optimizer, **settings)


# ------------------------------------------------------------------------------------------------------- the loop

# 9 epochs of 26 images with 3 crops, one epoch of warm-up; a batch has 4 images, or 12 with single crops
PASSES = [(0, 1), (1, 3), (4, 3), (7, 1), (8, 1)]
ITERATIONS = 3 + 7 + 7 + 3 + 3


class CropDataset(Dataset):
    """The toy's samples, each as several noisy copies."""

    metainfo: dict = {}  # noqa: RUF012

    def __init__(self, inner, num_crops=3):
        self.inner, self.num_crops = inner, num_crops

    def __len__(self):
        return len(self.inner)

    def with_crops(self, num_crops):
        return CropDataset(self.inner, num_crops)

    def __getitem__(self, index):
        item = self.inner[index]
        copies = [item['inputs'] + 0.1 * torch.randn(item['inputs'].shape) for _ in range(self.num_crops)]
        return {'inputs': copies, 'data_samples': item['data_samples']}


def crop_major(samples):
    crops = len(samples[0]['inputs'])
    return {
        'inputs': [sample['inputs'][crop] for crop in range(crops) for sample in samples],
        'data_samples': [sample['data_samples'] for sample in samples] * crops,
    }


@pytest.fixture
def options(toy, monkeypatch):
    """Options of the toy's ``train`` for such a training."""
    loop = {'type': 'vfd.MultiCropEpochLoop', 'max_epochs': 9, 'single_crop_warmup': 1, 'val_interval': 2}
    schedule = {'type': 'vfd.WarmupCosineByEpoch', 'warmup': 1, 'warmup_start': 0.1}

    def runner(**kwargs):
        return Runner(**{**kwargs, 'train_cfg': loop, 'param_scheduler': schedule})

    monkeypatch.setattr(toy, 'Runner', runner)
    return {'loader': {'dataset': CropDataset(toy.ToyDataset()), 'collate_fn': crop_major}}


class Watch(Hook):
    """What every pass looks like from a hook."""

    def __init__(self):
        self.passes, self.rates, self.seen = [], [], []

    def before_train_epoch(self, runner):
        self.begin, self.batches = runner.epoch, []
        self.rates.append(runner.optim_wrapper.param_groups[0]['lr'])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.batches.append((len(data_batch['inputs']), len(runner.train_dataloader)))

    def after_train_epoch(self, runner):
        self.passes.append((self.begin, runner.epoch + 1))
        self.seen.append(self.batches)


def test_a_training_visits_every_image_once_a_pass(toy, options, tmp_path):
    watch = Watch()
    result = toy.train(tmp_path, custom_hooks=[watch], ema=False, **options)
    assert watch.passes == [(0, 1), (1, 4), (4, 7), (7, 8), (8, 9)]
    assert len(result['losses']) == ITERATIONS
    iteration = 0
    for (_, crops), batches in zip(PASSES, watch.seen, strict=True):
        files = [name for i in range(len(batches)) for name in result['files'][iteration + i]]
        iteration += len(batches)
        assert sorted(files) == sorted(f'img_{i}.png' for i in range(26) for _ in range(crops))
        assert [size for size, _ in batches[:-1]] == [12] * (len(batches) - 1)  # samples of a full batch
        assert {total for _, total in batches} == {len(batches)}
    rates = [0.01, *(0.1 * (1 + math.cos(math.pi * epoch / 9)) / 2 for epoch in (1, 4, 7, 8))]
    assert watch.rates == pytest.approx(rates, rel=1e-12)
    assert [at for at, _ in result['validated_at']] == [10, 17, 20, 23]  # after 4, 7, 8 and 9 epochs


@pytest.mark.parametrize(
    ('interval', 'begin', 'saved'),
    [(1, 0, [1, 4, 7, 8, 9]), (2, 0, [4, 7, 8]), (3, 0, [4, 7, 9]), (5, 0, [7]), (2, 3, [4, 7, 9])],
)
def test_checkpoints_after_the_pass_that_completes_an_interval(
    interval, begin, saved, toy, options, tmp_path
):
    """Passes end after 1, 4, 7, 8 and 9 epochs."""
    options['checkpoint'] = {'by_epoch': True, 'interval': interval, 'save_begin': begin, 'save_last': False}
    toy.train(tmp_path, ema=False, val=False, **options)
    assert sorted(int(path.stem.removeprefix('epoch_')) for path in tmp_path.glob('epoch_*.pth')) == saved


# in the warm-up, in a pass, after its last batch, in the end
@pytest.mark.parametrize(('at', 'workers'), [(1, 0), (6, 0), (6, 2), (9, 0), (18, 0)])
def test_a_killed_run_continues_exactly(at, workers, toy, options, tmp_path):
    options['workers'] = workers
    whole = toy.train(tmp_path / 'whole', **options)
    killer = toy.KillAt(at, after=True)
    code, _ = toy.run_apart(
        toy.train, tmp_path / 'out', tmp_path / 'run', every=1, custom_hooks=[killer], **options
    )
    assert code == -signal.SIGKILL
    rest = toy.train(tmp_path / 'run', resume=True, every=1, **options)
    assert len(rest['losses']) < ITERATIONS
    for key in ('losses', 'files'):
        toy.assert_same({i: value for i, value in whole[key].items() if i in rest[key]}, rest[key], key)
    for key in ('weights', 'optimizer', 'ema', 'schedulers', 'generators'):
        toy.assert_same(whole[key], rest[key], key)


def test_other_data_and_lengths_are_refused(toy, options, tmp_path):
    with pytest.raises(UserError, match='StoredCropDataset'):
        toy.train(tmp_path)
    options['loader']['dataset'].num_crops = 1  # one loader for all passes
    assert len(toy.train(tmp_path, **options)['losses']) == 9 * 7
