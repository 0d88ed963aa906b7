"""The configs of plain distillation: published settings and results, models that build."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.registry import DefaultScope

from vfd.apis.config import load_config
from vfd.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs/kd'
FULL = [path for path in sorted(CONFIGS.glob('*.py')) if 'tiny' not in path.stem]
CIFAR = [path for path in FULL if path.stem.endswith('cifar100')]
# (student, teacher) -> temperature and kd_weight of the authors' logs, top-1 of KD and of standardised KD
PUBLISHED = {
    (20, 32): (None, None, 70.24, None),
    (20, 44): (None, None, 70.56, None),
    (20, 56): (2, 9, 70.98, 71.43),
    (20, 110): (4, 12, 70.79, None),
    (32, 110): (2, 9, 73.08, 74.17),
}


@pytest.mark.parametrize('path', CIFAR, ids=[path.stem for path in CIFAR])
def test_cifar_settings_are_the_published_ones(path):
    cfg = load_config(path)
    name, student, teacher = re.match(r'([a-z-]+)_resnet(\d+)_resnet(\d+)_1xb64', path.stem).groups()
    temperature, weight, _, _ = PUBLISHED[int(student), int(teacher)]
    optimizer, model = cfg.optim_wrapper.optimizer, cfg.model
    assert (optimizer.type, optimizer.lr) == ('SGD', 0.05)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 5e-4)
    assert cfg.train_cfg.max_epochs == 240 and cfg.param_scheduler.milestones == [150, 180, 210]
    assert cfg.param_scheduler.gamma == 0.1
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 64
    plain = name == 'kd'
    expected = (0.1, 0.9, 4) if plain else (0.1, weight, temperature)
    assert (model.ce_weight, model.kd_weight, model.temperature) == expected
    assert model.get('standardize', False) != plain
    assert ('decoupled' in model) == name.startswith('dkd')
    if 'decoupled' in model:
        assert model.decoupled == dict(alpha=1, beta=2, warmup_epochs=20) and 9 <= model.kd_weight <= 18
    assert model.student.model_name == f'cifar_resnet{student}'
    assert model.teacher.source.model_name == f'cifar_resnet{teacher}'
    assert f'resnet{teacher}_' in model.teacher.checkpoint
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        assert MODELS.build(model.student)(torch.zeros(2, 3, 32, 32), mode='tensor').shape == (2, 100)


def test_imagenet_settings_are_the_published_ones():
    (path,) = set(FULL) - set(CIFAR)
    cfg = load_config(path)
    optimizer, model = cfg.optim_wrapper.optimizer, cfg.model
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.2, 0.9, 1e-4)
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones) == (100, [30, 60, 90])
    assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 512
    assert (model.ce_weight, model.kd_weight, model.temperature, model.standardize) == (1, 9, 2, True)
    assert cfg.train_dataloader.dataset.pipeline[1].type == 'mmpretrain.RandomResizedCrop'
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        assert MODELS.build(model.student)(torch.zeros(2, 3, 64, 64), mode='tensor').shape == (2, 1000)


def test_the_metafile_names_every_full_scale_training_and_whose_numbers_it_has():
    metafile = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())
    assert {CONFIGS.parents[1] / model['Config'] for model in metafile['Models']} == set(FULL)
    found = {}
    for model in metafile['Models']:
        assert model['Name'] == Path(model['Config']).stem
        for result in model.get('Results', []):
            assert 'Distillation' in result['Metrics']['Published by the authors of']
            found[model['Name']] = result['Metrics']['Top 1 Accuracy']
    expected = {'kd-standardized_resnet18_resnet34_8xb64-steplr-100e_in1k': 71.45}
    for (student, teacher), (_, _, plain, standardized) in PUBLISHED.items():
        for name, value in (('kd', plain), ('kd-standardized', standardized)):
            if value is not None:
                expected[f'{name}_resnet{student}_resnet{teacher}_1xb64-steplr-240e_cifar100'] = value
    assert found == expected
