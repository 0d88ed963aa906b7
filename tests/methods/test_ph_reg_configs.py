"""PH-Reg's training configs: published settings, networks that build, a run that resumes, stored targets, export."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from mmengine.registry import DefaultScope
from ph_reg_toy import photos
from safetensors.torch import load_file

import vfd.methods.ph_reg
from vfd.apis.config import load_config
from vfd.apis.exporting import export
from vfd.apis.training import train
from vfd.errors import UserError
from vfd.methods.ph_reg import DenoisedCacheHook
from vfd.registry import MODELS
from vfd.stores import Store

CONFIGS = Path(__file__).parents[2] / 'configs/ph_reg'
FILES = sorted(CONFIGS.glob('ph-reg_*.py'))
FULL = [path for path in FILES if 'tiny' not in path.stem]
TINY = [path for path in FILES if path not in FULL]


def stems(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.mark.parametrize('path', FULL, ids=stems(FULL))
def test_settings_are_the_published_ones(path):
    cfg = load_config(path)
    clip = 'dinov2' not in path.stem
    lr, end_lr, batch, size = (3e-4, 1e-5, 16, 448) if clip else (1e-4, 5e-6, 8, 518)
    optimizer, schedule = cfg.optim_wrapper.optimizer, cfg.param_scheduler
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', lr, 1e-2)
    assert tuple(optimizer.betas) == (0.9, 0.999) and 'paramwise_cfg' not in cfg.optim_wrapper
    assert optimizer.lr * schedule.eta_min_ratio == pytest.approx(end_lr)
    assert cfg.train_cfg.max_epochs == (30 if '30e' in path.stem else 100)
    assert schedule.get('end', cfg.train_cfg.max_epochs) == 100
    assert cfg.train_dataloader.batch_size == batch and cfg.auto_scale_lr.base_batch_size == 4 * batch
    assert cfg.default_hooks.non_finite.action == 'skip' and 'clip_grad' not in cfg.optim_wrapper
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ('AmpOptimWrapper', 'bfloat16')
    student, teacher = cfg.model.student, cfg.model.teacher
    views = 1 if 'plain-teacher' in path.stem else 10
    assert (teacher.num_views, teacher.shift_frac, teacher.offset_sampling) == (views, 0.15, 'fps')
    registers = 0 if 'no-reg' in path.stem else 16
    assert (student.num_registers, student.unlock_last_blocks) == (registers, 2 if clip else 1)
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert [step.get('scale') or step.get('crop_size') for step in pipeline[1:3]] == [size, size]
    if clip:
        network = teacher.source.network
        assert (student.head, network.head, student.img_size) == ('maskclip', 'naclip', 448)
        assert student.model_name == network.model_name
        assert ('quickgelu' in network.model_name) == (network.tag in ('openai', 'dfn2b'))


@pytest.mark.parametrize('path', FULL, ids=stems(FULL))
def test_models_build(path):
    cfg = load_config(path)
    cfg.model.teacher.checkpoint = 'random'
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build({**cfg.model, 'data_preprocessor': None})
    assert model.teacher.network.activation == model.student.activation
    names = [name for name, _ in model.named_parameters()]
    assert names and not any('teacher' in name for name in names)
    assert model.student.grid == ((37, 37) if 'dinov2' in path.stem else (28, 28))
    if 'clip' in path.stem:
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        published = 86.65 if 'no-reg' in path.stem else 86.66
        assert millions == pytest.approx(published, abs=0.01)


EVALUATED = sorted(path for path in CONFIGS.glob('[lz]*.py') if 'tiny' not in path.stem)


@pytest.mark.parametrize('path', EVALUATED, ids=stems(EVALUATED))
def test_the_baseline_rows_ask_for_the_published_weights(path, monkeypatch):
    cfg = load_config(path)
    changes = ('num_registers=0', 'pretrained=True', 'checkpoint=None')
    readme = (Path(vfd.methods.ph_reg.__file__).parent / 'README.md').read_text()
    assert all(f'model.backbone.{change}' in readme for change in changes)
    cfg.merge_from_dict({'model.backbone': dict(num_registers=0, pretrained=True, checkpoint=None)})
    asked = []

    def fetch(name, *args, pretrained=False, **kwargs):
        if pretrained:
            asked.append((name, pretrained))
            raise OSError('no net')
        return create(name, *args, **kwargs)

    create = timm.create_model
    monkeypatch.setattr('timm.create_model', fetch)
    monkeypatch.setattr('open_clip.create_model', fetch)
    with torch.device('meta'), pytest.raises(UserError, match='could not be fetched'):
        MODELS.build(cfg.model.backbone)
    clip = {'openclip': 'laion2b_s34b_b88k', 'dfn-clip': 'dfn2b', 'clip': 'openai'}
    kind = path.stem.split('_')[1].split('-vit')[0]
    name = 'ViT-B-16' if kind == 'openclip' else 'ViT-B-16-quickgelu'
    assert asked == [(name, clip[kind]) if kind in clip else ('vit_base_patch14_dinov2', True)]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / 'data/folder/unlabelled')
    return tmp_path


def options_of(**more) -> dict:
    return {
        'default_hooks.checkpoint.interval': 1,
        'visualizer.vis_backends': [],
        'randomness.seed': 7,
        **more,
    }


@pytest.mark.parametrize('path', TINY, ids=stems(TINY))
def test_train_a_moment_and_resume(path, folder):
    """What a run interrupted in the middle of its second epoch comes to is what the uninterrupted run came to."""
    hooks = {'default_hooks.checkpoint.by_epoch': False}
    runner = train(path, folder / 'whole', options=options_of(**hooks))
    assert runner.iter == 4 and np.isfinite(runner.message_hub.get_scalar('train/loss').current())
    (folder / 'part').mkdir()
    shutil.copy(folder / 'whole/iter_3.pth', folder / 'part/iter_3.pth')
    train(path, folder / 'part', options=options_of(**hooks), resume=str(folder / 'part/iter_3.pth'))
    whole, resumed, first = (
        torch.load(folder / name, weights_only=True)
        for name in ('whole/iter_4.pth', 'part/iter_4.pth', 'whole/iter_3.pth')
    )
    for name, value in whole['state_dict'].items():
        assert name.startswith('student.') and torch.equal(value, resumed['state_dict'][name]), name
    moved = [n for n, value in whole['state_dict'].items() if not torch.equal(value, first['state_dict'][n])]
    assert any('reg' in name for name in moved)
    rates = [state['optimizer']['param_groups'][0]['lr'] for state in (whole, resumed)]
    assert rates[0] == rates[1] == pytest.approx(5e-5)


# ------------------------------------------------------------------------------------------------------- stored targets


FIXED = [
    dict(type='vfd.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=56, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.CenterCrop', crop_size=56),
    dict(type='mmpretrain.PackInputs'),
]


def cached(folder: Path, work: str, **more):
    options = options_of(
        custom_hooks=[dict(type='vfd.DenoisedCacheHook', store=str(folder / 'targets'))],
        **{'train_dataloader.dataset.pipeline': FIXED, **more},
    )
    return train(TINY[-1], folder / work, options=options)


def test_targets_are_computed_once(folder):
    first = cached(folder, 'first')
    store = Store(folder / 'targets')
    assert len(store) == 8 and store.fields['dense'] == (
        'float16',
        (64, first.bare_model.student.out_channels),
    )
    written = (folder / 'targets').stat().st_mtime_ns
    again = cached(folder, 'again')
    assert (folder / 'targets').stat().st_mtime_ns == written
    state, other = first.bare_model.state_dict(), again.bare_model.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)
    # what is stored is what the teacher says of the image
    record = torch.from_numpy(store['0.png']['dense']).float()
    assert record.isfinite().all() and record.std() > 0


def test_stored_targets_of_another_teacher_are_refused(folder):
    cached(folder, 'first')
    with pytest.raises(UserError, match=r'(?s)begun with other inputs.*num_views'):
        cached(folder, 'again', **{'model.teacher.num_views': 3})


def test_images_that_change_have_no_stored_target(folder, monkeypatch):
    """Whatever the transform is called, and not for its name alone."""
    hook = dict(type='vfd.DenoisedCacheHook', store=str(folder / 'targets'))
    with pytest.raises(UserError, match=r'RandomCrop.*CenterCrop'):
        train(TINY[-1], folder / 'work', options=options_of(custom_hooks=[hook]))
    jitter = [*load_config(TINY[-1]).train_dataloader.dataset.pipeline]
    jitter[2] = dict(type='mmpretrain.CenterCrop', crop_size=jitter[2].crop_size)
    jitter.insert(3, dict(type='mmpretrain.ColorJitter', brightness=0.5))
    options = options_of(custom_hooks=[hook], **{'train_dataloader.dataset.pipeline': jitter})
    with pytest.raises(UserError, match=r'changes .* every time'):
        train(TINY[-1], folder / 'jitter', options=options)
    assert not (folder / 'targets').exists()
    monkeypatch.setattr('vfd.engine.hooks.answer_cache.get_dist_info', lambda: (1, 2))
    empty = DenoisedCacheHook(str(folder / 'targets'))
    with pytest.raises(UserError, match='process 1 of 2 has no sample'):
        empty._write(SimpleNamespace(data_preprocessor=None), [], str(folder), ['a.png'], {})


# --------------------------------------------------------------------------------------------------------------- export


def test_the_student_leaves_for_every_target(folder):
    path = next(path for path in TINY if 'dinov2' in path.stem)
    train(path, folder / 'run', options=options_of(**{'train_cfg.max_epochs': 1}))
    certificate = export(path, folder / 'run/epoch_1.pth', 'timm')
    assert certificate.max_error == 0 and 'registers' in certificate.output
    assert certificate.teacher['source'].startswith('RegisterViT') and certificate.teacher['num_views'] == 4
    assert load_file(certificate.artefact)['reg_token'].shape == (1, 4, 48)
    scope: dict = {}
    exec(certificate.snippet, scope)
    assert isinstance(scope['model'], timm.models.VisionTransformer)
    assert 'images of 56x56 pixels' in certificate.output and 'scale01' in certificate.output
    for target in ('mmpretrain', 'mmdet', 'mmseg', 'hf'):
        certificate = export(path, folder / 'run/epoch_1.pth', target)
        assert certificate.max_error < 1e-6 and 'scale01' in certificate.output, target
    onnx = export(path, folder / 'run/epoch_1.pth', 'onnx')
    assert onnx.max_error < 1e-4 and 'scale01' in onnx.output


def test_clips_tower_leaves_under_open_clips_names(folder):
    path = next(path for path in TINY if 'clip' in path.stem)
    train(path, folder / 'run', options=options_of(**{'train_cfg.max_epochs': 1}))
    certificate = export(path, folder / 'run/epoch_1.pth', 'safetensors')
    tensors = load_file(certificate.artefact)
    assert {'register_tokens', 'conv1.weight', 'transformer.resblocks.2.ln_1.weight', 'proj'} <= set(tensors)
    assert tensors['positional_embedding'].shape == (65, 48)
    with pytest.raises(UserError, match='no vision transformer of timm'):
        export(path, folder / 'run/epoch_1.pth', 'timm')
