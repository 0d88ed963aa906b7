"""The pre-training configs of DMAE and of G2SD's generic stage: published settings, networks that build, training."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from vfd.apis.config import load_config
from vfd.apis.training import train
from vfd.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'
FILES = [
    path
    for method in ('dmae', 'g2sd')
    for path in sorted((CONFIGS / method).glob(f'{method}_*.py'))
    if load_config(path).model.type in ('vfd.DMAE', 'vfd.G2SDGeneric')
]
FULL = [path for path in FILES if 'in1k' in path.stem]
TINY = [path for path in FILES if path not in FULL]


def stems(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.mark.parametrize('path', FULL, ids=stems(FULL))
def test_settings_are_the_published_ones(path):
    cfg = load_config(path)
    dmae = cfg.model.type == 'vfd.DMAE'
    accumulate = cfg.optim_wrapper.accumulative_counts
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size * accumulate == 4096
    assert cfg.param_scheduler.hold == accumulate == (4 if dmae else 2)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay, tuple(optimizer.betas)) == (2.4e-3, 0.05, (0.9, 0.95))
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.warmup) == ((100, 20) if dmae else (300, 10))
    assert optimizer.lr * cfg.param_scheduler.get('eta_min_ratio', 0) == pytest.approx(0 if dmae else 2.5e-6)
    ratio = {'mask95': 0.95, 'mask98': 0.98}
    assert cfg.model.mask_ratio == next((ratio[part] for part in ratio if part in path.stem), 0.75)


@pytest.mark.parametrize('path', FULL, ids=stems(FULL))
def test_models_build(path):
    cfg = load_config(path)
    cfg.model.teacher.checkpoint = 'random'
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build({**cfg.model, 'data_preprocessor': None})
    names = [name for name, _ in model.named_parameters()]
    assert names and not any('teacher' in name for name in names)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    images = tmp_path / 'data/folder/unlabelled'
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(rng.integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(images / f'{number}.png')
    return tmp_path


@pytest.mark.parametrize('path', TINY, ids=stems(TINY))
def test_train_a_moment_and_resume(path, folder):
    """What a run interrupted after its first epoch comes to is what the uninterrupted run came to."""
    options = {
        'train_cfg.max_epochs': 2,
        'default_hooks.checkpoint.interval': 1,
        'visualizer.vis_backends': [],
    }
    options['randomness.seed'] = 7
    runner = train(path, folder / 'whole', options=options)
    assert np.isfinite(runner.message_hub.get_scalar('train/loss').current())
    (folder / 'part').mkdir()
    shutil.copy(folder / 'whole/epoch_1.pth', folder / 'part/epoch_1.pth')
    train(path, folder / 'part', options=options, resume=str(folder / 'part/epoch_1.pth'))
    whole, resumed, first = (
        torch.load(folder / name, weights_only=True)['state_dict']
        for name in ('whole/epoch_2.pth', 'part/epoch_2.pth', 'whole/epoch_1.pth')
    )
    assert list(whole) == list(resumed) and not any(name.startswith('teacher') for name in whole)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(not torch.equal(whole[name], first[name]) for name in whole)
