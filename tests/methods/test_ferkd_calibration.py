"""Region calibration of whole stores, and its pictures."""

import io
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
from ferkd_store import CLASSES, make_images, make_store
from PIL import Image

from vfd.errors import MissingFileError, UserError
from vfd.methods.ferkd import (
    LiveCalibration,
    build_calibration,
    calibrate_store,
    calibration,
    calibration_sheet,
)
from vfd.methods.ferkd.core import DISCARD
from vfd.methods.ferkd.inferencer import show_regions
from vfd.offline.calibrate import calibrate
from vfd.stores import LabelledImage, LabelStore, LabelStoreWriter, verify_labels

RULE = dict(thresholds=(0.3, 0.5, 0.8))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('calibration')
    names = make_images(root / 'images')
    return root / 'images', make_store(root / 'raw', root / 'images', names, crops=12)


@pytest.mark.parametrize('values', ['float32', 'float16'])
@pytest.mark.parametrize('label_type', ['ori', 'smoothing', 'marginal_smoothing_k3', 'marginal_renorm_k3'])
@pytest.mark.parametrize('confidence', ['max', 'gt'])
def test_baked_equals_calibrated_while_reading(tmp_path, made, values, label_type, confidence):
    images, _ = made
    names = LabelStore(made[1]).names
    raw = LabelStore(make_store(tmp_path / 'raw', images, names, 12, label_type, values))
    summary = calibrate_store(tmp_path / 'raw', tmp_path / 'new', {**RULE, 'confidence': confidence})
    baked = LabelStore(tmp_path / 'new')
    assert baked.calibrated and baked.label_type == label_type.replace('renorm', 'smoothing')
    live = LiveCalibration(raw, build_calibration(raw, **RULE, confidence=confidence))
    for index, name in [*enumerate(names)] * 2:
        image = baked.image(baked.index_of(name))
        np.testing.assert_array_equal(image.category, live.categories(index))
        np.testing.assert_array_equal(image.crops.labels, live.read(index).labels)
        rows = live.kept(index)[::-2]
        np.testing.assert_array_equal(live.read(index, rows).labels, baked.read(index, rows).labels)
        np.testing.assert_array_equal(image.crops.boxes, raw.read(index).boxes)
        assert len(baked.kept(index)) >= 4
    assert summary.histogram.sum() == 12 * len(names) and summary.kept == [
        len(baked.kept(i)) for i in range(len(names))
    ]
    assert verify_labels(tmp_path / 'new') == []
    with pytest.raises(UserError, match='calibrated already'):
        calibrate_store(tmp_path / 'new', tmp_path / 'newer', RULE)


def test_categories_are_worked_out_once_for_all_workers(made, monkeypatch):
    store = LabelStore(made[1])
    live = LiveCalibration(store, build_calibration(store, **RULE))
    wanted = [live.categories(index).tolist() for index in (0, 3)]
    fresh = LiveCalibration(store, live.rule)
    process = multiprocessing.get_context('fork').Process(target=lambda: [fresh.kept(0), fresh.kept(3)])
    process.start()
    process.join()
    monkeypatch.setattr(calibration, 'categories_of', None)
    assert [fresh.categories(index).tolist() for index in (0, 3)] == wanted
    reads = []
    monkeypatch.setattr(
        store, 'read', lambda index, rows=None: reads.append(rows) or LabelStore.read(store, index, rows)
    )
    fresh.read(3, fresh.kept(3)[:2])
    assert [len(rows) for rows in reads] == [2]


def test_quantiles_split_the_crops_of_the_whole_store(made, capsys):
    store = LabelStore(made[1])
    rule = build_calibration(store, quantiles=(0.25, 0.5, 0.75), min_keep=0)
    assert 'reading confidences: 6/6' in capsys.readouterr().err
    values = np.concatenate([store.read(i).labels[:, 1].max(axis=1) for i in range(len(store))])
    assert {rule.low, rule.mid, rule.high} <= set(values.tolist())
    for threshold, part in ((rule.low, 0.25), (rule.mid, 0.5)):
        assert abs((values < threshold).mean() - part) < 0.02
    assert abs((values > rule.high).mean() - 0.25) < 0.02


def test_interrupted_it_goes_on(tmp_path, made, monkeypatch):
    monkeypatch.setattr('vfd.stores.label_store.BLOCK_CROPS', 12)
    calibrate_store(made[1], tmp_path / 'whole', RULE)
    append = LabelStoreWriter.append

    def stop(writer, image):
        if len(writer.done) == 3:
            raise KeyboardInterrupt
        append(writer, image)

    monkeypatch.setattr(LabelStoreWriter, 'append', stop)
    with pytest.raises(KeyboardInterrupt):
        calibrate_store(made[1], tmp_path / 'cut', RULE)
    monkeypatch.setattr(LabelStoreWriter, 'append', append)
    calibrate_store(made[1], tmp_path / 'cut', RULE)
    for file in (tmp_path / 'whole').iterdir():
        assert file.read_bytes() == (tmp_path / 'cut' / file.name).read_bytes()
    with pytest.raises(UserError, match=r'calibration\.epsilon: was 0\.1, is 0\.2'):
        calibrate_store(made[1], tmp_path / 'cut', {**RULE, 'epsilon': 0.2})


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({}, 'either three thresholds'),
        ({'thresholds': (0.1, 0.2)}, 'either three thresholds'),
        ({'thresholds': (0.1, 0.2, 0.3), 'quantiles': (0.1, 0.2, 0.3)}, 'either three thresholds'),
        ({'thresholds': (0.5, 0.2, 0.9)}, r'raw: thresholds .*low=0.5, mid=0.2'),
        ({'quantiles': (0.5, 0.2, 0.9)}, r'raw: thresholds .*low=0.5, mid=0.2'),
        ({'thresholds': (0.1, 0.2, 0.9), 'min_keep': 13}, 'min_keep=13, but .* has 12 crops'),
        ({'thresholds': (0, 0, 0), 'min_keep': 0}, r'no crop of class0/0.png \(record 0\) is left'),
    ],
)
def test_settings_that_make_no_sense(tmp_path, made, settings, message):
    with pytest.raises(UserError, match=message):
        calibrate_store(made[1], tmp_path / 'new', settings)


def test_labels_that_cannot_be_calibrated(tmp_path, made):
    images, store = made
    with pytest.raises(UserError, match='choose another folder'):
        calibrate_store(store, store, RULE)
    names = LabelStore(store).names
    with pytest.raises(UserError, match='no probability'):
        calibrate_store(make_store(tmp_path / 'hard', images, names, 12, 'hard'), tmp_path / 'new', RULE)
    raw = LabelStore(store)
    with LabelStoreWriter(tmp_path / 'unknown', raw.form, {}) as writer:
        image = raw.image(0)
        writer.append(LabelledImage(image.name, image.size, image.crops))
    with pytest.raises(UserError, match=r'class of class0/0.png \(record 0\) is not known'):
        calibrate_store(tmp_path / 'unknown', tmp_path / 'new2', RULE)


def test_table_and_pictures(tmp_path, made, capsys):
    images, store = made
    (tmp_path / 'names.txt').write_text('\n'.join(f'name {i}' for i in range(CLASSES)))
    summary = calibrate(str(store), str(tmp_path / 'new'), RULE, str(images), str(tmp_path / 'names.txt'))
    table = capsys.readouterr().out
    counts = summary.histogram.sum(axis=1).tolist()
    for name, count in zip(('discarded', 'context', 'important'), counts, strict=True):
        assert f'{name}' in table and str(count) in table
    categories = [LabelStore(tmp_path / 'new').image(i).category for i in range(len(summary.kept))]
    assert counts == np.bincount(np.concatenate(categories), minlength=3).tolist() and counts[DISCARD] > 0
    for name in ('categories.png', 'crops.png'):
        picture = np.asarray(Image.open(tmp_path / 'new' / name).convert('RGB'))
        assert picture.shape[0] > 300 and picture.std() > 5
    with pytest.raises(MissingFileError, match='relative to another folder'):
        calibrate(str(store), str(tmp_path / 'other'), RULE, str(tmp_path))


def test_the_sheet_does_without_images_that_are_gone(tmp_path, made):
    shutil.copytree(made[0], tmp_path / 'images')
    summary = calibrate_store(made[1], tmp_path / 'new', RULE)
    whole = calibration_sheet(made[1], tmp_path / 'images', summary)
    (tmp_path / 'images' / LabelStore(made[1]).names[0]).unlink()
    fewer = calibration_sheet(made[1], tmp_path / 'images', summary)
    widths = [Image.open(io.BytesIO(png)).width for png in (whole, fewer)]
    assert widths[0] > widths[1] > 300


def test_demo_shows_every_crop(made, monkeypatch):
    images, _ = made
    tiny = Path(__file__).parents[2] / 'configs/ferkd/relabel_tiny_crops12-k5_folder.py'
    rule = dict(low=0.1003, mid=0.1006, high=0.101, confidence='max', min_keep=1)
    png, text = show_regions(str(tiny), str(images / 'class2/2.png'), rule, {'model.crops': 9}, device='cpu')
    assert len(text.splitlines()) == 9 and Image.open(io.BytesIO(png)).width > 800
    with pytest.raises(UserError, match='No such file'):
        show_regions(str(tiny), str(images / 'nothing.png'), rule)
    with pytest.raises(UserError, match='classes 0 to 9'):
        show_regions(str(tiny), str(images / 'class2/2.png'), rule, ground_truth=10)
