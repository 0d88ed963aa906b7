"""Segmenting one image by names: the API and the demo."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vfd.apis.zero_shot import ZeroShotSegmentationInferencer
from vfd.errors import UserError
from vfd.visualization.segmentation import class_colours, draw_segmentation
from vfd.visualization.theme import DARK

ROOT = Path(__file__).parents[2]
TINY = ROOT / 'configs/ph_reg/zero-shot_tiny_folder.py'


@pytest.fixture
def photo(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (70, 110, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'photo.jpg'), image)
    return tmp_path / 'photo.jpg'


def demo(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, 'argv', ['zero_shot_segmentation_demo.py', *map(str, arguments)])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / 'demo/zero_shot_segmentation_demo.py'), run_name='__main__')
    return leave.value.code


def test_the_demo_refuses_random_weights_and_draws_when_allowed(photo, tmp_path, monkeypatch, capsys):
    common = [photo, '--config', TINY, '--classes', 'sky', 'car, automobile', '--out', tmp_path / 'out.png']
    assert demo(monkeypatch, *common) == 2
    assert 'random weights' in capsys.readouterr().err and not (tmp_path / 'out.png').exists()
    assert demo(monkeypatch, *common, '--allow-random') == 0
    assert 'mean nothing' in capsys.readouterr().out
    assert min(cv2.imread(str(tmp_path / 'out.png')).shape[:2]) > 200


def test_labels_have_the_size_of_the_image_and_shares_add_up(photo):
    segment = ZeroShotSegmentationInferencer(TINY, class_names=['sky', 'car', 'road'], allow_random=True)
    result = segment(photo)
    assert result.image.shape == (70, 110, 3) and result.labels.shape == (70, 110)
    assert sum(result.shares.values()) == pytest.approx(1) and set(result.shares) <= {'sky', 'car', 'road'}
    everything = ZeroShotSegmentationInferencer(TINY, prob_thd=0.999, allow_random=True)(photo)
    assert not everything.labels.any() and everything.shares == {'background': 1.0}
    assert segment.model.prob_thd == 0  # the config's threshold is for its own names


def test_a_checkpoint_is_loaded_whole(photo, tmp_path):
    network = ZeroShotSegmentationInferencer(TINY, allow_random=True).model.backbone.network
    state = {f'student.{name}': torch.randn_like(value) for name, value in network.state_dict().items()}
    torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'epoch_1.pth')
    loaded = ZeroShotSegmentationInferencer(
        TINY, tmp_path / 'epoch_1.pth', allow_random=True
    ).model.backbone.network
    assert all(value.equal(state[f'student.{name}']) for name, value in loaded.state_dict().items())
    state.pop('student.proj')
    torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'epoch_1.pth')
    with pytest.raises(UserError, match='proj'):
        ZeroShotSegmentationInferencer(TINY, tmp_path / 'epoch_1.pth', allow_random=True)


def test_mistakes(photo, tmp_path):
    with pytest.raises(UserError, match='ZeroShotSegmentor'):
        ZeroShotSegmentationInferencer(ROOT / 'configs/ph_reg/linear-seg_tiny_1xb4-polylr-20i_folder-64px.py')
    full = ROOT / 'configs/ph_reg/zero-shot_clip-vit-base-p16_voc21.py'
    with pytest.raises(UserError, match='backbone has random weights'):
        ZeroShotSegmentationInferencer(full)
    segment = ZeroShotSegmentationInferencer(TINY, allow_random=True)
    with pytest.raises(UserError, match='no image at'):
        segment(tmp_path / 'nowhere.jpg')
    (tmp_path / 'text.jpg').write_text('no image')
    with pytest.raises(UserError, match=r'text\.jpg'):
        segment(tmp_path / 'text.jpg')


def test_colours_are_different_and_a_dark_page_works():
    colours = class_colours(171)
    assert colours.shape == (171, 3) and len({tuple(c) for c in colours.round(3)}) > 150
    assert len({tuple(c) for c in colours[:20]}) == 20
    labels = np.arange(12).reshape(3, 4)
    names = [f'class {i}' for i in range(12)]
    picture = draw_segmentation(
        np.zeros((3, 4, 3), np.uint8), labels, names, dict.fromkeys(names, 1 / 12), DARK
    )
    assert picture.startswith(b'\x89PNG')
