"""The configs of SSLD: published settings, models that build, two stages that train and hand over."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from mmengine.registry import DefaultScope
from PIL import Image

from vfd.apis import config as config_api
from vfd.apis.training import prepare, train
from vfd.engine import Runner
from vfd.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs' / 'ssld'
FILES = sorted(CONFIGS.glob('*.py'))
FULL = [path for path in FILES if 'tiny' not in path.stem]

# beginning of the file name: epochs, L2, total batch, base learning rate, loss (as published)
PUBLISHED = {
    'ssld-stage1_mobilenetv1_': (360, 3e-5, 4096, 1.6, 'js'),
    'ssld-stage1_mobilenetv2_': (360, 1e-5, 3072, 0.54, 'js'),
    'ssld-stage1_mobilenetv3-large_': (360, 1e-5, 5760, 3.65625, 'js'),
    'ssld-stage1_mobilenetv3-small_': (360, 1e-5, 5760, 3.65625, 'js'),
    'ssld-stage1_resnet50-vd_': (360, 7e-5, 1024, 0.4, 'js'),
    'ssld-stage1_resnet101-vd_': (360, 7e-5, 1024, 0.4, 'js'),
    'ssld-stage1_hgnetv2-b4_': (360, 2e-5, 1024, 0.5, 'ce'),
    'ssld-stage2_mobilenetv1_': (30, 3e-5, 4096, 0.016, 'js'),
    'ssld-stage2_mobilenetv2_': (30, 1e-5, 3072, 0.0054, 'js'),
    'ssld-stage2_mobilenetv3-large_': (30, 1e-5, 2048, 0.008, 'js'),
    'ssld-stage2_mobilenetv3-small_': (30, 1e-5, 6400, 0.025, 'js'),
    'ssld-stage2_resnet50-vd_': (60, 7e-5, 1024, 0.004, 'js'),
    'ssld-stage2_resnet101-vd_': (30, 7e-5, 1024, 0.004, 'js'),
    'ssld-stage2_hgnetv2-b4_': (60, 2e-5, 1024, 0.005, 'ce'),
    'ssld-v2-stage1_resnet50-vd_': (360, 2e-5, 1024, 0.4, 'js'),
    'ssld-v2-stage2_resnet50-vd_': (60, 2e-5, 1024, 0.004, 'js'),
    'ssld-fix_resnet50-vd_': (10, 2e-5, 1024, 0.004, 'js'),
    'ssld_lcnet-x1-0_': (200, 1e-5, 1024, 0.4, 'js'),
    'ssld_mobilenetv3-small_': (120, 1e-5, 1024, 0.65, 'ce'),
    'ssld-legacy_mobilenetv3-large_': (120, 1e-5, 2048, 1.3, 'js_legacy'),
    'ssld-legacy_resnet50-vd_': (120, 7e-5, 1024, 0.4, 'js_legacy'),
}


@functools.cache
def load_config(path: Path):
    return config_api.load_config(path)


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.mark.parametrize('path', FULL, ids=names(FULL))
def test_settings_are_the_published_ones_and_the_name_says_them(path):
    cfg = load_config(path)
    begin = next(begin for begin in PUBLISHED if path.stem.startswith(begin))
    epochs, l2, batch, lr, loss = PUBLISHED[begin]
    gpus, per_gpu = map(int, re.search(r'_(\d+)xb(\d+)-', path.stem).groups())
    assert gpus * per_gpu == cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.train_dataloader.batch_size == per_gpu
    assert cfg.train_cfg.max_epochs == epochs and f'-{epochs}e_' in path.stem
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum, optimizer.lr, optimizer.weight_decay) == ('SGD', 0.9, lr, l2)
    assert not optimizer.get('nesterov') and 'paramwise_cfg' not in cfg.optim_wrapper
    assert cfg.model.distill_loss.mode == loss and cfg.model.teacher_bn == 'train'
    assert cfg.param_scheduler.warmup == (1 if 'fix' in path.stem else 5)
    assert ('-amp-' in path.stem) == (cfg.optim_wrapper.type == 'AmpOptimWrapper')
    assert ('in5m' in path.stem) == (cfg.train_dataloader.dataset.type == 'ConcatDataset')
    assert cfg.default_scope == 'mmpretrain'


def test_every_published_row_has_its_config():
    assert len(FULL) == len(PUBLISHED)


def pipelines(cfg) -> list[list[str]]:
    dataset = cfg.train_dataloader.dataset
    return [[step.type for step in part.pipeline] for part in dataset.get('datasets', [dataset])]


@pytest.mark.parametrize(
    ('begin', 'augmentation'),
    [
        ('ssld-stage', None),
        ('ssld-v2-', 'AutoAugment'),
        ('ssld-stage1_hgnet', 'RandAugment'),
        ('ssld_', None),
    ],
)
def test_augmentation_of_the_recipes(begin, augmentation):
    for path in FULL:
        if path.stem.startswith(begin) and ('hgnet' in path.stem) == ('hgnet' in begin):
            for steps in pipelines(load_config(path)):
                assert [step for step in steps if step.endswith('Augment')] == (
                    [f'mmpretrain.{augmentation}'] if augmentation else []
                )


def test_the_second_stage_starts_from_the_first():
    second = [path for path in FILES if '-stage2_' in path.stem or 'fix' in path.stem]
    assert len(second) == 10
    for path in second:
        folder, checkpoint = Path(load_config(path).load_from).parts[1:]
        first = CONFIGS / f'{folder}.py'
        assert first.is_file(), first
        before, after = load_config(first), load_config(path)
        assert checkpoint == f'epoch_{before.train_cfg.max_epochs}.pth'
        assert before.model.student == after.model.student and before.model.teacher == after.model.teacher


@pytest.mark.parametrize('path', FILES, ids=names(FILES))
def test_the_student_builds_and_answers_as_many_classes_as_the_teacher(path):
    cfg = load_config(path)
    source = cfg.model.teacher.source
    if cfg.model.teacher.checkpoint == 'pretrained':
        assert source.model_name in timm.list_pretrained()
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        student = MODELS.build(cfg.model.student)
        teacher = timm.create_model(source.model_name, num_classes=source.get('num_classes', 1000))
        logits = student(torch.zeros(2, 3, 64, 64), mode='tensor')
    assert logits.shape == (2, teacher.num_classes)
    for begin in cfg.model.get('train_only', ()):
        assert any(name.removeprefix('model.').startswith(begin) for name, _ in student.named_parameters())


def test_the_metafile_names_every_full_scale_config():
    metafile = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())
    listed = {Path(model['Config']).stem: model for model in metafile['Models']}
    assert set(listed) == {path.stem for path in FULL}
    collections = {collection['Name'] for collection in metafile['Collections']}
    for stem, model in listed.items():
        assert model['Name'] == stem and model['In Collection'] in collections
        assert (CONFIGS.parents[1] / model['Config']).is_file()
        for result in model.get('Results', []):
            assert result['Metrics']['Published by the authors'] is True
            assert 70 < result['Metrics']['Top 1 Accuracy'] < 90


# ------------------------------------------------------------------------------------------- two stages, trained


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """``data/folder`` in the current directory, as the small configs want it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part, count in (('train', 1), ('val', 1)):
        for label in range(10):
            target = tmp_path / 'data/folder' / part / f'class{label}'
            target.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(
                    target / f'{number}.png'
                )
    unlabelled = tmp_path / 'data/folder/unlabelled'
    unlabelled.mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(unlabelled / f'{number}.png')
    return tmp_path


def test_both_stages_train_a_moment_and_the_second_loads_the_student_of_the_first(folder):
    options = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1, 'visualizer.vis_backends': []}
    first_config = CONFIGS / 'ssld-stage1_tiny_1xb8-coslr-4e_folder.py'
    work_dir = folder / 'work_dirs' / first_config.stem
    first = train(first_config, work_dir, options=options)
    assert len(first.train_dataloader.dataset) == 16  # labelled and unlabelled
    checkpoint = work_dir / 'epoch_1.pth'
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    assert all(name.startswith('student.') for name in state)

    options['load_from'] = str(checkpoint)
    second_config = CONFIGS / 'ssld-stage2_tiny_1xb8-coslr-2e_folder.py'
    assert load_config(second_config).load_from == f'work_dirs/{first_config.stem}/epoch_4.pth'
    second = Runner.from_cfg(prepare(second_config, folder / 'work_dirs/second', options))
    before = {name: value.clone() for name, value in second.model.state_dict().items()}
    assert any(not value.equal(state[name]) for name, value in before.items())
    second.load_or_resume()
    loaded = second.model.state_dict()
    assert list(loaded) == list(state)
    assert all(value.equal(state[name]) for name, value in loaded.items())
    second.train()
    assert len(second.train_dataloader.dataset) == 10
    after = second.model.state_dict()
    assert any(not value.equal(state[name]) for name, value in after.items())
    assert all(torch.isfinite(value).all() for value in after.values())
    metrics = second.message_hub.get_scalar('val/accuracy/top1').current()
    assert 0 <= metrics <= 100
