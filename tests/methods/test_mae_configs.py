"""The configs of MAE and of further pre-training: published settings, and stages that hand over to each other."""

from __future__ import annotations

import functools
import itertools
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from PIL import Image

from vfd.apis import config as config_api
from vfd.apis.training import prepare, train
from vfd.engine import Runner
from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.teachers import StoredTeacher

CONFIGS = Path(__file__).parents[2] / 'configs/mae'
FILES = sorted(CONFIGS.glob('*.py'))
FULL = [path for path in FILES if 'tiny' not in path.stem]
PRETRAINING = [path for path in FULL if path.stem.startswith('mae_')]
STAGES = [path for path in FULL if path not in PRETRAINING]
TINY = 'tiny_1xb8-linearlr-12i_folder'


@functools.cache
def load_config(path: Path):
    return config_api.load_config(path)


def stems(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.mark.parametrize('path', PRETRAINING, ids=stems(PRETRAINING))
def test_pretraining_has_the_published_settings(path):
    cfg = load_config(path)
    assert (cfg.model.type, cfg.model.mask_ratio, cfg.model.norm_pix) == ('vfd.MAE', 0.75, True)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == 4096
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay, tuple(optimizer.betas)) == (2.4e-3, 0.05, (0.9, 0.95))
    assert optimizer.lr == pytest.approx(1.5e-4 * 4096 / 256)
    assert cfg.param_scheduler.warmup == 40
    assert f'-{cfg.train_cfg.max_epochs}e_' in path.stem
    assert cfg.model.student.arch == re.search(r'vit-(\w+)-', path.stem)[1]
    assert f'-p{cfg.model.student.get("patch_size", 16)}_' in path.stem


@pytest.mark.parametrize('path', STAGES, ids=stems(STAGES))
def test_stages_have_the_published_settings(path):
    cfg = load_config(path)
    third = 'stage3' in path.stem
    steps, batch, lr, betas, warmup = (
        (10_000, 32, 1e-4, (0.9, 0.999), 500) if third else (20_000, 64, 1.5e-4, (0.9, 0.95), 0)
    )
    assert cfg.train_cfg.max_iters == steps and not cfg.train_cfg.by_epoch
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == batch
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, tuple(optimizer.betas), optimizer.weight_decay) == (lr, betas, 0.01)
    assert cfg.param_scheduler.get('warmup', 0) == warmup
    assert cfg.optim_wrapper.get('clip_grad') == ({'max_norm': 1.0} if third else None)
    random = [step.type for step in cfg.train_pipeline if 'Random' in step.type]
    assert random == (['mmpretrain.RandomFlip'] if third else [])
    if not third:
        assert (cfg.model.mask_ratio, cfg.model.norm_pix, cfg.model.student.norm_eps) == (0.75, True, 1e-12)
        assert cfg.model.student.checkpoint == 'checkpoints/mae_pretrain_vit_base_full.pth'
    if 'stage2' in path.stem:
        assert (cfg.model.target, cfg.model.reduction, cfg.model.loss_weight) == ('cls', 'sum', 1.0)


@pytest.mark.parametrize('path', FILES, ids=stems(FILES))
def test_every_checkpoint_of_a_run_is_one_that_another_config_writes(path):
    model = load_config(path).model
    named = [
        model.get('checkpoint'),
        *(model.get(part, {}).get('checkpoint') for part in ('student', 'teacher')),
    ]
    for checkpoint in [name for name in named if name and name.startswith('work_dirs/')]:
        _, run, file = checkpoint.split('/')
        writer = load_config(CONFIGS / f'{run}.py')
        last = writer.train_cfg.get('max_iters', writer.train_cfg.get('max_epochs'))
        assert file == f'{"iter" if "max_iters" in writer.train_cfg else "epoch"}_{last}.pth'


@pytest.mark.parametrize('cached', ['', '_cached'])
@pytest.mark.parametrize('run', ['vit-base-p16_1xb64-linearlr-20k_folder', TINY])
def test_every_round_has_the_network_of_the_round_before_as_teacher(run, cached, monkeypatch):
    folders, stores = [], []
    for number in range(1, 5):
        monkeypatch.setenv('ROUND', str(number))
        cfg = config_api.load_config(CONFIGS / f'further-pretrain-stage2_{run}{cached}.py')
        folder, file = cfg.model.teacher.checkpoint.rsplit('/', 1)
        folders.append((folder, cfg.get('work_dir') or f'work_dirs/further-pretrain-stage2_{run}'))
        assert file == f'iter_{cfg.train_cfg.max_iters}.pth'
        stores += [hook.store for hook in cfg.get('custom_hooks', [])]
    assert folders[0] == tuple(f'work_dirs/further-pretrain-{stage}_{run}' for stage in ('stage1', 'stage2'))
    assert all(before[1] == after[0] for before, after in itertools.pairwise(folders))
    assert len({own for _, own in folders}) == 4 and len(set(stores)) == (4 if cached else 0)
    monkeypatch.setenv('ROUND', 'two')
    with pytest.raises(UserError, match='two'):
        config_api.load_config(CONFIGS / f'further-pretrain-stage2_{run}{cached}.py')


@pytest.mark.parametrize('path', FULL, ids=stems(FULL))
def test_full_models_build(path):
    cfg = load_config(path).model.copy()
    if 'teacher' in cfg:
        cfg.teacher.checkpoint = 'random'
    if 'student' in cfg:
        cfg.student.pop('checkpoint', None)
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build({**cfg, 'data_preprocessor': None})
    assert not any('teacher' in name for name in model.state_dict())


def test_the_metafile_names_every_full_scale_config():
    metafile = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())
    listed = {Path(model['Config']).stem: model for model in metafile['Models']}
    assert set(listed) == set(stems(FULL))
    for stem, model in listed.items():
        assert model['Name'] == stem
        for result in model.get('Results', []):
            assert result['Metrics']['Published by the authors'] is True


def test_undecayed_parameters():
    """Stages 1 and 2: vectors and biases; stage 3: biases, positions and the class token, but not norm weights."""
    for stage in (1, 3):
        cfg = load_config(CONFIGS / f'further-pretrain-stage{stage}_{TINY}.py')
        model = cfg.model.to_dict()
        model.pop('checkpoint', None)
        model.get('student', {}).pop('checkpoint', None)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(model)
            wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        undecayed = {
            names[id(parameter)]
            for group in wrapper.optimizer.param_groups
            for parameter in group['params']
            if not group['weight_decay'] and parameter.requires_grad
        }
        parameters = dict(model.named_parameters())
        if stage == 1:
            assert undecayed == {
                name for name in trained if parameters[name].ndim == 1 or name.endswith('.bias')
            }
            assert 'student.cls_token' in trained - undecayed and 'student.pos_embed' not in trained
        else:
            assert undecayed == {
                name for name in trained if name.endswith(('.bias', 'pos_embed', 'cls_token'))
            }
            assert {'model.norm.weight', 'model.blocks.0.norm1.weight'} <= trained - undecayed
            assert 'model.pos_embed' in trained


# ------------------------------------------------------------------------------------------- the chain, trained

OPTIONS = {'visualizer.vis_backends': [], 'randomness.seed': 7, 'train_dataloader.batch_size': 4}


@pytest.fixture(scope='module')
def chain(tmp_path_factory):
    """mae_tiny, stage 1, stage 2 and stage 3, one after the other: the folder that holds ``work_dirs``."""
    folder = tmp_path_factory.mktemp('chain')
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for part in ('unlabelled', *(f'{part}/class{k}' for part in ('train', 'val') for k in range(10))):
            images = folder / 'data/folder' / part
            images.mkdir(parents=True)
            for number in range(8 if part == 'unlabelled' else 1):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(images / f'{number}.png')
        train(CONFIGS / 'mae_tiny_1xb8-coslr-2e_folder.py', options=OPTIONS)
        for stage in (1, 2, 3):
            train(CONFIGS / f'further-pretrain-stage{stage}_{TINY}.py', options=OPTIONS)
        DefaultScope._instance_dict.clear()
    return folder


@pytest.fixture
def in_chain(chain, monkeypatch) -> Path:
    monkeypatch.chdir(chain)
    return chain


def state(folder: Path, run: str) -> dict[str, torch.Tensor]:
    name = {'mae': 'mae_tiny_1xb8-coslr-2e_folder/epoch_2.pth'}.get(
        run, f'further-pretrain-{run}_{TINY}/iter_12.pth'
    )
    return torch.load(folder / 'work_dirs' / name, weights_only=True)['state_dict']


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_stages_train_a_moment_one_after_the_other(chain):
    original, first, second = state(chain, 'mae'), state(chain, 'stage1'), state(chain, 'stage2')
    assert original.keys() == first.keys() == second.keys()
    assert all(name.startswith('student.') for name in original)
    third = state(chain, 'stage3')
    assert 'cls_token' in third and 'head.weight' in third
    for run in (first, second, third):
        assert all(torch.isfinite(value).all() for value in run.values())
    assert not torch.equal(first['student.cls_token'], second['student.cls_token'])
    assert torch.equal(original['student.pos_embed'], second['student.pos_embed'])  # frozen so far
    assert not torch.equal(second['student.pos_embed'], third['pos_embed'])


def test_stage_2_starts_from_the_original_and_stage_3_from_stage_2(in_chain):
    runner = Runner.from_cfg(
        prepare(CONFIGS / f'further-pretrain-stage2_{TINY}.py', in_chain / 'start', OPTIONS)
    )
    start, original = runner.model.state_dict(), state(in_chain, 'mae')
    assert all(torch.equal(start[name], value) for name, value in original.items())
    teacher, first = runner.model.teacher.network.state_dict(), state(in_chain, 'stage1')
    assert all(torch.equal(value, first[f'student.{name}']) for name, value in teacher.items())
    assert not torch.equal(start['student.cls_token'], teacher['cls_token'])
    assert runner.model.teacher.report.loaded and not runner.model.teacher.report.missing

    classifier = Runner.from_cfg(
        prepare(CONFIGS / f'further-pretrain-stage3_{TINY}.py', in_chain / 'start', OPTIONS)
    )
    classifier.model.init_weights()
    start, second = classifier.model.state_dict(), state(in_chain, 'stage2')
    new = {name for name in start if f'student.{name}' not in second}
    assert new == {'head.weight', 'head.bias'}
    assert all(torch.equal(start[name], second[f'student.{name}']) for name in start if name not in new)


def test_a_second_round_starts_from_the_original_under_the_first_ones_network(in_chain, monkeypatch):
    monkeypatch.setenv('ROUND', '2')
    runner = train(CONFIGS / f'further-pretrain-stage2_{TINY}.py', options=OPTIONS)
    teacher, first = runner.model.teacher.network.state_dict(), state(in_chain, 'stage2')
    assert all(torch.equal(value, first[f'student.{name}']) for name, value in teacher.items())
    second = state(in_chain, 'stage2-round2')
    assert second.keys() == first.keys() and not same(first, second)
    assert torch.equal(second['student.pos_embed'], state(in_chain, 'mae')['student.pos_embed'])
    assert not torch.equal(second['student.cls_token'], first['student.cls_token'])


@pytest.mark.parametrize('stage', ['stage1', 'stage2', 'stage3'])
def test_train_a_moment_and_resume(in_chain, stage):
    """What a run interrupted halfway comes to is what the uninterrupted run came to."""
    run = f'further-pretrain-{stage}_{TINY}'
    resumed = in_chain / 'resumed' / stage
    resumed.mkdir(parents=True)
    shutil.copy(in_chain / 'work_dirs' / run / 'iter_6.pth', resumed)
    train(CONFIGS / f'{run}.py', resumed, resume=str(resumed / 'iter_6.pth'), options=OPTIONS)
    ours = torch.load(resumed / 'iter_12.pth', weights_only=True)['state_dict']
    assert same(ours, state(in_chain, stage))
    halfway = torch.load(resumed / 'iter_6.pth', weights_only=True)['state_dict']
    assert not same(ours, halfway)


def losses(checkpoint: Path, name: str) -> torch.Tensor:
    hub = torch.load(checkpoint, weights_only=True)['message_hub']
    return hub['log_scalars'][f'train/{name}']['history']


def test_cached_teacher_gives_the_losses_of_the_live_one(in_chain):
    """Stage 2 from stored answers, also when it is resumed; a store is not taken for other images."""
    config, run = CONFIGS / f'further-pretrain-stage2_{TINY}_cached.py', in_chain / 'cached'
    runner = train(config, run, options=OPTIONS)
    assert isinstance(runner.model.teacher, StoredTeacher) and runner.model.teacher.seconds > 0
    live = in_chain / f'work_dirs/further-pretrain-stage2_{TINY}'
    for name in ('loss_mae', 'loss_distill'):
        ours, theirs = (losses(folder / 'iter_12.pth', name) for folder in (run, live))
        assert len(ours) == 12
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)

    resumed = in_chain / 'cached_resumed'
    resumed.mkdir()
    shutil.copy(run / 'iter_6.pth', resumed)
    train(config, resumed, resume=str(resumed / 'iter_6.pth'), options=OPTIONS)
    whole, again = (
        torch.load(folder / 'iter_12.pth', weights_only=True)['state_dict'] for folder in (run, resumed)
    )
    assert same(whole, again)

    options = {**OPTIONS, 'train_dataloader.dataset.data_root': 'data/folder/unlabelled'}
    with pytest.raises(UserError, match='other inputs'):
        train(config, in_chain / 'other', options=options)


def test_cached_teacher_refuses_random_augmentation(in_chain):
    pipeline = load_config(CONFIGS / f'further-pretrain-stage2_{TINY}.py').train_pipeline
    flip = {'type': 'mmpretrain.RandomFlip', 'prob': 0.5, 'direction': 'horizontal'}
    options = {
        **OPTIONS,
        'train_dataloader.dataset.pipeline': [*pipeline[:-1], flip, pipeline[-1]],
        'custom_hooks': [{'type': 'vfd.TeacherCacheHook', 'store': 'work_dirs/flipped'}],
    }
    with pytest.raises(UserError, match='random transforms'):
        train(CONFIGS / f'further-pretrain-stage2_{TINY}.py', in_chain / 'flipped', options=options)


def test_cached_teacher_needs_stage_2(in_chain):
    options = {**OPTIONS, 'custom_hooks': [{'type': 'vfd.TeacherCacheHook', 'store': 'work_dirs/none'}]}
    with pytest.raises(UserError, match='SelfDistillMAE'):
        train(CONFIGS / f'further-pretrain-stage1_{TINY}.py', in_chain / 'none', options=options)


@pytest.mark.parametrize(
    ('cached', 'setting'), [('', 'load_from'), ('', 'model.student.checkpoint'), ('_cached', 'load_from')]
)
def test_stage_2_from_the_weights_of_stage_1_is_refused(in_chain, cached, setting):
    options = {**OPTIONS, setting: f'work_dirs/further-pretrain-stage1_{TINY}/iter_12.pth'}
    with pytest.raises(UserError, match='the teacher itself started from'):
        train(CONFIGS / f'further-pretrain-stage2_{TINY}{cached}.py', in_chain / 'equal', options=options)


def test_stage_2_needs_a_student_with_decoder(in_chain):
    encoder = {
        name.removeprefix('student.'): value
        for name, value in state(in_chain, 'mae').items()
        if 'decoder' not in name and 'mask_token' not in name
    }
    torch.save({'model': encoder}, in_chain / 'encoder.pth')
    options = {**OPTIONS, 'model.student.checkpoint': 'encoder.pth'}
    with pytest.raises(UserError, match='decoder'):
        train(CONFIGS / f'further-pretrain-stage2_{TINY}.py', in_chain / 'encoder', options=options)
