"""The reconstruction demo: what it shows for each method, with and without a teacher, and what it refuses."""

from __future__ import annotations

import copy
import io
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from vfd.apis.reconstruction import ReconstructionInferencer
from vfd.backbones import MaskedAutoencoder
from vfd.errors import MissingFileError, UserError
from vfd.losses.pixel import pixel_target
from vfd.registry import MODELS
from vfd.visualization import DARK, LIGHT, Reconstruction, draw_reconstruction

DEMO = Path(__file__).parents[2] / 'demo/reconstruction_demo.py'
SIZE = dict(img_size=32, patch_size=8, num_heads=2)
NETWORK = dict(embed_dim=24, depth=2, decoder_embed_dim=16, decoder_depth=2, decoder_num_heads=2, **SIZE)
STUDENT = dict(type='vfd.MaskedAutoencoder', **NETWORK)
PREPROCESSOR = dict(
    type='mmpretrain.ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
    to_rgb=True,
)  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A photo, a teacher's file, and a config and a checkpoint of each method."""
    root = tmp_path_factory.mktemp('demo')
    torch.manual_seed(0)
    torch.save({'model': MaskedAutoencoder(**NETWORK).state_dict()}, root / 'teacher.pth')
    teacher = dict(
        type='vfd.Teacher', source=dict(type='vfd.MAESource', **NETWORK), checkpoint=str(root / 'teacher.pth')
    )
    models = {
        'dmae': dict(type='vfd.DMAE', student=STUDENT, teacher=teacher, align=[dict(student=0, teacher=1)]),
        'mae': dict(type='vfd.MAE', student=STUDENT),
        'further': dict(type='vfd.SelfDistillMAE', student=STUDENT, teacher=teacher),
        'g2sd': dict(type='vfd.G2SDGeneric', student=STUDENT, teacher=teacher, teacher_layer=1),
    }
    for name, model in models.items():
        model['data_preprocessor'] = PREPROCESSOR
        Config(dict(model=model, default_scope='mmpretrain')).dump(root / f'{name}.py')
        torch.save({'state_dict': MODELS.build(copy.deepcopy(model)).state_dict()}, root / f'{name}.pth')
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(root / 'photo.png')
    return root


def look(folder: Path, name: str, **settings) -> Reconstruction:
    config = Config.fromfile(folder / f'{name}.py')
    config.merge_from_dict(settings)
    return ReconstructionInferencer(config, folder / f'{name}.pth')(folder / 'photo.png')


def picture(result: Reconstruction, theme=LIGHT) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(draw_reconstruction(result, theme))).convert('RGB'))


@pytest.mark.parametrize('name', ['dmae', 'mae', 'further', 'g2sd'])
def test_every_method_is_shown(name, folder):
    result = look(folder, name)
    assert result.image.shape == (32, 32, 3) and result.hidden.shape == (4, 4)
    assert result.hidden.sum() == 12  # of 16 at the published ratio
    assert list(result.features) == (['student'] if name == 'mae' else ['student', 'teacher'])
    shapes = {map_.shape for map_ in result.features.values()}
    assert len(shapes) == 1 and shapes.pop()[1:] == (4, 4)
    assert (result.predicted is None) == (name == 'g2sd')
    light, dark = picture(result), picture(result, DARK)
    assert light.shape == dark.shape
    assert (light[0, 0] == 255).all() and (dark[0, 0] < 60).all()


def test_visible_patches_are_the_image_and_hidden_ones_the_prediction(folder):
    result = look(folder, 'dmae')
    mask = result.pixel_mask[..., 0]
    assert mask.sum() == 12 * 64
    np.testing.assert_array_equal(result.pasted[~mask], result.image[~mask])
    np.testing.assert_array_equal(result.masked[~mask], result.image[~mask])
    np.testing.assert_allclose(result.pasted[mask], result.predicted[mask].clip(0, 1))
    assert len(np.unique(result.masked[mask])) == 1
    gap = 255 * (result.pasted - result.image)[mask]
    assert result.error == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-5)


@pytest.mark.parametrize('norm_pix', [False, True])
def test_a_perfect_prediction_is_the_photo(norm_pix, folder):
    """Colours come back in the right order and range, and normalised patches in the photo's own."""
    config = Config.fromfile(folder / 'dmae.py')
    config.model.norm_pix = norm_pix
    inferencer = ReconstructionInferencer(config, folder / 'dmae.pth')
    inferencer.model.student.reconstruct = lambda inputs, mask: pixel_target(inputs, 8, norm_pix)
    result = inferencer(folder / 'photo.png')
    np.testing.assert_allclose(result.predicted, result.image, atol=2e-3)
    assert any('mean and deviation of the true one' in note for note in result.notes) == norm_pix


def test_the_photos_middle_is_shown(folder):
    photo = np.asarray(Image.open(folder / 'photo.png')).astype(float)[:, 16:80] / 255
    expected = photo.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(look(folder, 'mae').image, expected, atol=1 / 255)


def test_a_seed_is_a_mask(folder):
    inferencer = ReconstructionInferencer(folder / 'dmae.py', folder / 'dmae.pth')
    state = torch.get_rng_state()
    first, again, other = (inferencer(folder / 'photo.png', seed).hidden for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    assert torch.equal(torch.get_rng_state(), state)
    hidden = ReconstructionInferencer(folder / 'dmae.py', folder / 'dmae.pth', mask_ratio=0.9)(
        folder / 'photo.png'
    ).hidden
    assert hidden.sum() == 15


@pytest.mark.parametrize('name', ['dmae', 'further', 'g2sd'])
@pytest.mark.parametrize(
    ('file', 'note'), [('no/such.pth', 'no/such.pth is not there'), ('random', 'is random')]
)
def test_without_the_teachers_weights_the_student_is_shown_alone(file, note, name, folder):
    result = look(folder, name, **{'model.teacher.checkpoint': file})
    assert list(result.features) == ['student']
    assert any(note in line for line in result.notes)
    picture(result)


def test_a_released_file_is_shown_too(folder):
    for name in ('mae', 'dmae'):
        result = ReconstructionInferencer(folder / f'{name}.py', folder / 'teacher.pth')(folder / 'photo.png')
        assert list(result.features) == ['student']


def test_mistakes_are_explained(folder, tmp_path):
    inferencer = ReconstructionInferencer(folder / 'mae.py', folder / 'mae.pth')
    with pytest.raises(MissingFileError, match='no image at'):
        inferencer(tmp_path / 'none.png')
    (tmp_path / 'broken.png').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'broken\.png'):
        inferencer(tmp_path / 'broken.png')
    with pytest.raises(UserError, match='Missing'):
        ReconstructionInferencer(folder / 'mae.py', folder / 'g2sd.pth')
    with pytest.raises(UserError, match='leaves none'):
        ReconstructionInferencer(folder / 'mae.py', folder / 'mae.pth', mask_ratio=0.99)
    other = dict(type='vfd.SSLDDistiller', student=dict(type='mmpretrain.TimmClassifier'), teacher={})
    with pytest.raises(UserError, match='no masked autoencoder'):
        ReconstructionInferencer(Config(dict(model=other)), folder / 'mae.pth')


def test_the_command(folder, monkeypatch, capsys, tmp_path):
    out = tmp_path / 'picture.png'
    arguments = ['--config', folder / 'dmae.py', '--checkpoint', folder / 'dmae.pth', '--out', out]

    def run(image: Path) -> int:
        monkeypatch.setattr(sys, 'argv', [str(DEMO), str(image), *map(str, arguments)])
        with pytest.raises(SystemExit) as leave:
            runpy.run_path(str(DEMO), run_name='__main__')
        return leave.value.code

    assert run(folder / 'photo.png') == 0
    assert 'root mean squared error of the hidden pixels' in capsys.readouterr().out
    assert Image.open(out).format == 'PNG'
    assert run(tmp_path / 'none.png') == 2
    assert 'error: no image at' in capsys.readouterr().err
