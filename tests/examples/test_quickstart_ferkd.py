"""The FerKD quickstart in miniature: a small untrained teacher, a few steps, then again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from quickstart import ferkd, training
from quickstart.data import DESCRIPTION, fingerprint
from quickstart.teacher import TeacherSpec

from vfd.errors import UserError

OPTIONS = {
    'train_cfg.max_iters': 2,
    'train_cfg.val_interval': 2,
    'param_scheduler.warmup': 1,
    'default_hooks.checkpoint.interval': 2,
    'default_hooks.logger.interval': 1,
    'train_dataloader.batch_size': 4,
}
CLASSES = 'abcdefghij'


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Forty images of ten classes where the quickstart keeps them, and a teacher's weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, 'MOST_THREADS', 1)
    root = tmp_path / 'data/quickstart_ferkd/cifar10'
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        label = CLASSES[number % 10]
        for place in ('unlabelled', f'labelled/{label}', f'test/{label}'):
            (root / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / place / f'{number:05d}.png')
    content = {'title': 'Noise', 'source': 'a test', 'licence': 'none', 'classes': list(CLASSES)}
    content |= {'counts': {'unlabelled': 40, 'labelled': 40, 'test': 40}, 'size': [32, 32]}
    (root / DESCRIPTION).write_text(json.dumps({**content, 'fingerprint': fingerprint(root)}))
    torch.manual_seed(0)
    torch.save(timm.create_model('test_efficientnet').state_dict(), tmp_path / 'teacher.pth')
    return tmp_path


def test_three_students_of_equal_budget(images, capsys):
    settings = {
        'teacher': TeacherSpec('test_efficientnet', str(images / 'teacher.pth'), 32),
        'options': OPTIONS,
        'relabel_options': {'model.crops': 5},
    }
    results = ferkd.ferkd_quickstart(**settings)
    assert results['labelled'] == 40 and sum(results['categories']) == 40 * 5
    assert set(results['runs']) == {'supervised', 'fkd', 'ferkd'}
    assert all(0 <= value <= 1 for values in results['runs'].values() for value in values)
    work = images / ferkd.WORK
    assert json.loads((work / 'results.json').read_text()) == results
    assert 'supervised baseline' in capsys.readouterr().out
    assert (work / 'labels-calibrated/crops.png').is_file()
    written = {path: path.stat().st_mtime_ns for path in work.rglob('iter_2.pth')}
    assert len(written) == 3
    assert ferkd.ferkd_quickstart(**settings) == results
    assert written == {path: path.stat().st_mtime_ns for path in work.rglob('iter_2.pth')}
    other = ferkd.ferkd_quickstart(**{**settings, 'relabel_options': {'model.crops': 4}})  # takes their place
    assert sum(other['categories']) == 40 * 4
    for checkpoint in written:
        checkpoint.unlink()


def test_the_supervised_baseline_has_the_same_budget(images):
    config, supervised = (ferkd._config(kind, None) for kind in ('fkd', 'supervised'))
    samples = config.train_dataloader.batch_size * config.train_dataloader.dataset.num_crops
    assert supervised.train_dataloader.batch_size == samples == 64
    assert supervised.train_cfg == config.train_cfg and supervised.optim_wrapper == config.optim_wrapper
    assert 'store' not in supervised.train_dataloader.dataset


def test_mistakes():
    with pytest.raises(UserError, match='--seeds 0'):
        ferkd.ferkd_quickstart(0)
