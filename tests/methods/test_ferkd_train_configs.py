"""The training configs of FKD and FerKD: published settings, models that build, and a laptop run from end to end."""

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

from vfd.apis import baseline, training
from vfd.apis import config as config_api
from vfd.apis.exporting import export
from vfd.cli.main import main
from vfd.engine import Runner, crop_passes
from vfd.errors import UserError
from vfd.offline.label import relabel
from vfd.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs' / 'ferkd'
FILES = sorted([*CONFIGS.glob('fkd_*.py'), *CONFIGS.glob('ferkd_*.py')])
FULL = [path for path in FILES if 'tiny_' not in path.stem]
RELABEL = CONFIGS / 'relabel_tiny_crops12-k5_folder.py'
CNNS = ('resnet50', 'resnet101')


@functools.cache
def load_config(path: Path):
    return config_api.load_config(path)


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.mark.parametrize('path', FULL, ids=names(FULL))
def test_settings_are_the_published_ones_and_the_name_says_them(path):
    cfg = load_config(path)
    method, student = path.stem.split('_')[:2]
    gpus, images, crops = map(int, re.search(r'_(\d+)xb(\d+)-crops(\d+)-', path.stem).groups())
    loader, loop, optimizer = cfg.train_dataloader, cfg.train_cfg, cfg.optim_wrapper.optimizer
    assert loader.batch_size == images and loader.dataset.num_crops == crops == 4
    assert gpus * images == cfg.auto_scale_lr.base_batch_size and gpus * images * crops == 1024
    assert loop.type == 'vfd.MultiCropEpochLoop' and loop.max_epochs == 300 and '-300e_' in path.stem
    assert cfg.param_scheduler.type == 'vfd.WarmupCosineByEpoch'
    if student in CNNS:
        assert (optimizer.type, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (
            'SGD',
            0.1,
            0.9,
            1e-4,
        )
        assert not loop.get('single_crop_warmup') and not cfg.param_scheduler.get('warmup')
    else:
        assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 2e-3, 0.05)
        assert loop.single_crop_warmup == cfg.param_scheduler.warmup == 5
        assert cfg.param_scheduler.warmup_start * optimizer.lr == pytest.approx(1e-5)
        assert cfg.param_scheduler.eta_min_ratio * optimizer.lr == pytest.approx(1e-5)
        assert cfg.model.student.drop_path_rate == 0.1
    assert ('selfmix' in cfg.model) == ('calibration' in loader.dataset) == (method == 'ferkd')
    assert Path(loader.dataset.store).name == 'relabel_efficientnet-l2-475_crops500-k5_in1k'
    assert (CONFIGS / f'{Path(loader.dataset.store).name}.py').is_file()


def test_fkd_and_ferkd_have_the_same_students():
    fkd, ferkd = (
        {path.stem.partition('_')[2] for path in FULL if path.stem.startswith(f'{method}_')}
        for method in ('fkd', 'ferkd')
    )
    assert fkd == ferkd and len(fkd) == 6


@pytest.mark.parametrize('path', FILES, ids=names(FILES))
def test_the_student_builds_and_answers(path):
    cfg = load_config(path)
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
        size = cfg.train_dataloader.dataset.crop_size
        logits = model(torch.zeros(2, 3, size, size), mode='tensor')
    assert logits.shape == (2, cfg.data_preprocessor.num_classes)


def test_the_metafile_names_every_full_scale_config():
    metafile = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())
    listed = {Path(model['Config']).stem: model for model in metafile['Models']}
    assert {stem for stem in listed if not stem.startswith('relabel')} == {path.stem for path in FULL}
    for stem, model in listed.items():
        assert model['Name'] == stem
        for result in model.get('Results', []):
            assert result['Metrics']['Published by the authors'] is True
            assert 70 < result['Metrics']['Top 1 Accuracy'] < 90


# ------------------------------------------------------------------------------------------------- from end to end


@pytest.fixture(scope='module')
def labelled(tmp_path_factory) -> Path:
    """``data/folder`` with 10 images and the label store, as the small configs want them."""
    root = tmp_path_factory.mktemp('ferkd')
    rng = np.random.default_rng(0)
    for part in ('train', 'val'):
        for label in range(10):
            target = root / 'data/folder' / part / f'class{label}'
            target.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(target / '0.png')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        relabel(RELABEL, device='cpu')
    return root


def test_the_calibration_command_of_the_readme_runs_as_it_is(labelled, monkeypatch):
    readme = (CONFIGS.parents[1] / 'vfd/methods/ferkd/README.md').read_text()
    command = re.search(r'^vfd (calibrate .*)$', readme, re.MULTILINE)[1]
    monkeypatch.chdir(labelled)
    assert main(command.split()) == 0
    assert Path('work_dirs/labels-calibrated/crops.png').is_file()


def run(path: Path, folder: Path, resume: bool | str = False, **options):
    options = {'visualizer.vis_backends': [], 'randomness.seed': 0, 'log_level': 'WARNING', **options}
    torch.manual_seed(0)
    return training.train(path, folder, resume=resume, options=options)


@pytest.mark.parametrize('method', ['fkd', 'ferkd'])
def test_train_a_moment_test_and_export(method, labelled, tmp_path, monkeypatch):
    monkeypatch.chdir(labelled)
    (path,) = CONFIGS.glob(f'{method}_tiny*.py')
    runner = run(path, tmp_path / 'run')
    passes = crop_passes(12, 4, int(method == 'ferkd'))
    assert runner.iter == sum(5 if each.crops == 4 else 2 for each in passes)
    losses = runner.message_hub.get_scalar('train/loss_soft').data[0]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    checkpoint = tmp_path / 'run/epoch_12.pth'
    metrics = training.test(path, checkpoint, tmp_path / 'test', options={'visualizer.vis_backends': []})
    assert metrics['accuracy/top1'] == runner.message_hub.get_scalar('val/accuracy/top1').current()

    certificate = export(path, checkpoint, 'timm', tmp_path / 'export')
    assert certificate.files and (tmp_path / 'export/timm/certificate.json').is_file()
    state = torch.load(checkpoint, weights_only=True)['state_dict']
    network = timm.create_model('test_resnet', num_classes=10)
    network.load_state_dict({name.removeprefix('student.'): value for name, value in state.items()})


@pytest.mark.parametrize(
    ('loop', 'loader'),
    [
        ('passes', {}),
        ('passes', {'drop_last': True, 'dataset': {'num_crops': 3}}),
        ('epochs', {'batch_size': 3}),  # counts a pass as an epoch, whatever crops it takes
        ('epochs', {'num_batch_per_epoch': 2}),
    ],
)
def test_the_supervised_twin_takes_exactly_as_many_steps(loop, loader, labelled, tmp_path, monkeypatch):
    """9 epochs of 10 images: passes of several crops and of one, whose batches do not come out even."""
    monkeypatch.chdir(labelled)
    (path,) = CONFIGS.glob('ferkd_tiny*.py')
    options = {'visualizer.vis_backends': [], 'train_cfg.max_epochs': 9, 'train_dataloader': loader}
    cfg = training.prepare(path, tmp_path, options)
    if loop == 'epochs':
        cfg.train_cfg = dict(by_epoch=True, max_epochs=9)
    supervised = baseline.baseline_config(cfg)
    assert supervised.model.type == 'mmpretrain.TimmClassifier' and supervised.train_cfg == cfg.train_cfg
    steps = []
    for each in (cfg, supervised):
        runner = Runner.from_cfg(each)
        steps.append(runner.build_train_loop(each.train_cfg).max_iters)
    assert steps[0] == steps[1]
    if not loader:
        assert training.run(supervised).iter == steps[1]


def test_a_checkpoint_of_another_student_is_an_error(labelled, tmp_path, monkeypatch):
    monkeypatch.chdir(labelled)
    (path,) = CONFIGS.glob('fkd_tiny*.py')
    torch.save({'state_dict': {'student.fc.weight': torch.zeros(1)}, 'meta': {}}, tmp_path / 'other.pth')
    with pytest.raises(UserError, match='not of the model'):
        training.test(path, tmp_path / 'other.pth', tmp_path, options={'visualizer.vis_backends': []})


def test_a_resumed_run_continues_exactly(labelled, tmp_path, monkeypatch):
    """In the middle of a pass of four crops, with SelfMix, calibration and workers."""
    monkeypatch.chdir(labelled)
    (path,) = CONFIGS.glob('ferkd_tiny*.py')
    saving = {'default_hooks.checkpoint.by_epoch': False, 'default_hooks.checkpoint.max_keep_ckpts': 20}
    whole = run(path, tmp_path / 'whole', **saving)
    assert whole.iter == 18
    for at in (4, 9):
        checkpoint = tmp_path / f'whole/iter_{at}.pth'
        workers = {'train_dataloader.num_workers': 2} if at == 4 else {}
        rest = run(path, tmp_path / f'rest{at}', str(checkpoint), **saving, **workers)
        states = [runner.model.state_dict() for runner in (whole, rest)]
        assert all(value.equal(states[1][name]) for name, value in states[0].items())
        rates = [runner.optim_wrapper.param_groups[0]['lr'] for runner in (whole, rest)]
        assert rates[0] == rates[1]


def test_a_deleted_image_is_skipped_and_counted(labelled, tmp_path, monkeypatch):
    monkeypatch.chdir(labelled)
    (path,) = CONFIGS.glob('fkd_tiny*.py')
    gone = labelled / 'data/folder/train/class3/0.png'
    content = gone.read_bytes()
    gone.unlink()
    try:
        run(path, tmp_path / 'run', **{'train_cfg.max_epochs': 1})
    finally:
        gone.write_bytes(content)
    assert gone.relative_to(labelled).as_posix() in (tmp_path / 'run/bad_data.txt').read_text()
