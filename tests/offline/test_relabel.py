"""Relabelling: what is stored is what the teacher says, whatever happens on the way."""

import errno
import hashlib
import multiprocessing
import os
import pickle
import random
import runpy
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as TF

from vfd.errors import MissingFileError, UserError
from vfd.methods.ferkd import crop_chunks, crops
from vfd.offline.calibrate import calibrate
from vfd.offline.label import images_of, merge_relabelling, relabel, source_images, verify_relabelling
from vfd.offline.verify import verify_store
from vfd.registry import MODELS
from vfd.stores import LabelStore, UnfinishedStoreError

TINY = Path(__file__).parents[2] / 'configs/ferkd/relabel_tiny_crops12-k5_folder.py'
BROKEN = {'c1/3.png', 'c2/3.jpg'}


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """Six images a class of three, two of them broken."""
    root = tmp_path_factory.mktemp('relabel')
    rng = np.random.default_rng(0)
    for number in range(18):
        path = root / f'train/c{number % 3}/{number // 3}.{"jpg" if number % 2 else "png"}'
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40 + number, 60), Image.Resampling.BICUBIC).save(path)
    (root / 'train/c1/3.png').write_bytes(b'no image')
    content = (root / 'train/c2/3.jpg').read_bytes()
    (root / 'train/c2/3.jpg').write_bytes(content[: len(content) // 2])
    return root


def options(data: Path, **more) -> dict:
    settings = {
        'train_dataloader.dataset.data_root': str(data),
        'model.teacher.input_size': 32,
        'model.crops': 8,
    }
    return settings | {name.replace('__', '.'): value for name, value in more.items()}


@pytest.fixture(scope='module')
def store(data) -> Path:
    return relabel(TINY, str(data / 'store'), options(data)).folder


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr('vfd.stores.label_store.BLOCK_CROPS', 16)


def digest(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def config_of(data: Path, **more):
    from vfd.apis.config import load_config

    return load_config(TINY, options(data, **more))


def test_labels_are_those_of_the_plain_loop(data, store):
    """As the released generator works: tensor crops, normalised one by one, softmax, sort."""
    labels = LabelStore(store)
    labeller = MODELS.build(config_of(data).model)
    teacher = labeller.teachers[0]
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert len(labels) == 16 and not BROKEN & set(labels.names)
    for index in (0, 9):
        image = Image.open(data / 'train' / labels.names[index]).convert('RGB')
        assert labels.image_size(index) == (image.height, image.width)
        assert labels.ground_truth(index) == int(labels.names[index][1])
        crops = labels.read(index)
        inputs = []
        for box, flip in zip(crops.boxes.tolist(), crops.flip, strict=True):
            crop = TF.resized_crop(image, *box, (32, 32), TF.InterpolationMode.BICUBIC)
            inputs.append(normalize(TF.to_tensor(TF.hflip(crop) if flip else crop)))
        probs = torch.cat([teacher(torch.stack(inputs[i : i + 5]))['logits'].softmax(1) for i in (0, 5)])
        values, ids = probs.sort(dim=1, descending=True, stable=True)
        np.testing.assert_array_equal(crops.labels[:, 0], ids[:, :5])
        np.testing.assert_array_equal(crops.labels[:, 1], values[:, :5])


def test_plan_counts_and_unreadable_images(data, tmp_path, capfd):
    done = relabel(TINY, str(tmp_path / 'new'), options(data))
    captured = capfd.readouterr()
    assert 'labelling 18 images x 8 crops (144 crops): 18 items' in captured.out and 'to go' in captured.out
    assert set(done.skipped) == BROKEN and '2 could not be read' in captured.out and '18/18' in captured.err
    report = (tmp_path / 'new/skipped-00000-of-00001.txt').read_text().splitlines()
    assert report[0].startswith('c1/3.png\t') and 'not an image' in report[0] and len(report) == 2
    relabel(TINY, str(tmp_path / 'new'), options(data))
    assert '16 already done' in capfd.readouterr().out


@pytest.mark.parametrize('more', [{'train_dataloader__num_workers': 2}, {'model__chunk': 5}])
def test_workers_change_nothing(data, store, tmp_path, more):
    relabel(TINY, str(tmp_path / 'new'), options(data, **more))
    assert digest(tmp_path / 'new') == digest(store)


def test_a_worker_opens_an_image_once_and_holds_no_network(data, store, tmp_path, monkeypatch):
    opened = tmp_path / 'opened.txt'

    def read_rgb(content, name):
        with opened.open('a') as file:
            file.write(f'{name}\n')
        return crops.read_rgb(content, name)

    monkeypatch.setattr(crop_chunks, 'read_rgb', read_rgb)
    relabel(TINY, str(tmp_path / 'new'), options(data, model__chunk=3, train_dataloader__num_workers=3))
    names = opened.read_text().splitlines()
    assert len(names) == 19 and len(set(names)) == 18  # the first one also for the plan
    ours, other = LabelStore(tmp_path / 'new'), LabelStore(store)
    assert ours.names == other.names  # in the order of the data set
    labeller = MODELS.build(config_of(data).model)
    assert len(pickle.dumps(labeller.dataset([('a.png', Path('a.png'))]))) < 1000


def test_ranks_share_the_images(data, store, tmp_path, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '3')
    for rank in (2, 0, 1):
        with pytest.raises((UnfinishedStoreError, MissingFileError)):
            LabelStore(tmp_path / 'new')
        monkeypatch.setenv('RANK', str(rank))
        relabel(TINY, str(tmp_path / 'new'), options(data), launcher='pytorch')
    merge_relabelling(TINY, str(tmp_path / 'new'))
    ours, other = LabelStore(tmp_path / 'new'), LabelStore(store)
    assert sorted(ours.names) == sorted(other.names)
    for index, name in enumerate(ours.names):
        np.testing.assert_array_equal(ours.read(index).labels, other.read(other.index_of(name)).labels)


def tool(config: Path, folder: Path) -> None:
    """``tools/relabel.py``, as the process that it is: all of its imports are done."""
    sys.argv = ['relabel.py', str(config), '--work-dir', str(folder), '--device', 'cpu']
    runpy.run_path(str(TINY.parents[2] / 'tools/relabel.py'), run_name='__main__')


def test_killed_all_over_the_run_it_goes_on(data, tmp_path, small_blocks):
    """kill -9 before the first record and after each quarter; the files are those of an uninterrupted run."""
    config = tmp_path / 'relabel.py'
    lines = [f'_base_ = {str(TINY)!r}', 'model = dict(crops=12, chunk=1, teacher=dict(input_size=32))']
    config.write_text('\n'.join([*lines, f"train_dataloader = dict(dataset=dict(data_root='{data}'))"]))
    relabel(config, str(tmp_path / 'whole'), device='cpu')
    shard = tmp_path / 'cut/shard-00000-of-00001.bin'
    total = (tmp_path / 'whole' / shard.name).stat().st_size
    rng = random.Random(0)

    def written() -> int:
        return shard.stat().st_size if shard.exists() else -1

    kills = []
    for quarter in range(4):
        process = multiprocessing.get_context('fork').Process(target=tool, args=(config, tmp_path / 'cut'))
        process.start()
        while process.is_alive() and written() * 4 < total * quarter:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        kills.append(written())
    assert kills == sorted(kills) and len(set(kills)) == 4 and kills[0] < total / 4 and kills[3] < total
    relabel(config, str(tmp_path / 'cut'), device='cpu')
    assert digest(tmp_path / 'cut') == digest(tmp_path / 'whole')


def test_a_changed_image_is_refused_and_a_deleted_one_counted(data, tmp_path, capsys):
    for file in (data / 'train').rglob('*.*'):
        copy = tmp_path / file.relative_to(data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    folder = str(tmp_path / 'store')
    relabel(TINY, folder, options(tmp_path))
    assert verify_relabelling(TINY, folder, options(tmp_path)) == []
    (tmp_path / 'train/c0/2.png').unlink()
    again = relabel(TINY, folder, options(tmp_path))
    assert again.images == 16 and len(again.skipped) == 2 and again.gone == ['c0/2.png']
    assert '2 could not be read, 1 are no longer in the data set' in capsys.readouterr().out
    names = [name for name in LabelStore(folder).names if name != 'c0/0.png']
    (tmp_path / 'list.txt').write_text('\n'.join(['c0/0.png 0', *(f'{n} {n[1]}' for n in names)]))
    listed = {'type': 'vfd.ImageListDataset', 'ann_file': 'list.txt', 'data_prefix': 'train'}
    listed |= {'data_root': str(tmp_path), '_delete_': True}  # a list still names it
    assert relabel(TINY, folder, options(tmp_path, train_dataloader__dataset=listed)).gone == ['c0/2.png']
    changed = tmp_path / 'train/c0/4.png'
    changed.write_bytes(changed.read_bytes() + b' ')
    (fault,) = verify_relabelling(TINY, folder, options(tmp_path))
    assert 'c0/4.png' in fault
    swapped = tmp_path / 'train/c0/0.png'  # as large as it was
    content = swapped.read_bytes()
    swapped.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for faults in (
        verify_relabelling(TINY, folder, options(tmp_path)),
        verify_store(folder, str(tmp_path / 'train')),
    ):
        assert sorted(Path(line.partition(':')[0]).name for line in faults) == ['0.png', '4.png']
    swapped.write_bytes(content)
    with pytest.raises(UserError, match=r'c0/4\.png \(image \d+\) changed after it was labelled'):
        relabel(TINY, folder, options(tmp_path))


def test_verify_names_a_flipped_bit(data, store, tmp_path):
    folder = tmp_path / 'new'
    folder.mkdir()
    for file in store.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    file = folder / 'shard-00000-of-00001.bin'
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    (fault,) = verify_relabelling(TINY, str(folder), options(data))
    assert 'record 7' in fault or 'record 8' in fault
    assert verify_store(str(folder)) == [fault]
    with pytest.raises(UserError, match='differs from its checksum'):  # nor are its boxes taken from there
        relabel(TINY, str(tmp_path / 'other'), options(data, model__reference=str(folder)))


def test_boxes_of_a_reference_and_the_mean_of_two_teachers(data, store, tmp_path):
    teachers = []
    for number, size in enumerate((32, 48)):
        torch.save(
            timm.create_model('test_efficientnet', num_classes=10).state_dict(), tmp_path / f'{number}.pth'
        )
        given = {'checkpoint': str(tmp_path / f'{number}.pth'), 'input_size': size}
        teachers.append({**config_of(data).model.teacher.to_dict(), **given})
    settings = options(data, model__label_type='ori', model__reference=str(store), model__seed=5)
    del settings['model.teacher.input_size']
    answers = []
    for name, asked in (('a', teachers[:1]), ('b', teachers[1:]), ('ab', teachers)):
        config = tmp_path / f'{name}.py'
        config.write_text(f'_base_ = {str(TINY)!r}\nmodel = dict(teacher={asked!r})\n')
        answers.append(LabelStore(relabel(config, str(tmp_path / name), settings).folder))
    first, second, mean = answers
    other = LabelStore(store)
    for index in (0, 9):
        reference = other.read(other.index_of(mean.names[index]))
        np.testing.assert_array_equal(mean.read(index).boxes, reference.boxes)
        np.testing.assert_array_equal(mean.read(index).flip, reference.flip)
        average = (first.read(index).labels + second.read(index).labels) / 2
        assert abs(first.read(index).labels - second.read(index).labels).max() > 1e-5
        np.testing.assert_allclose(mean.read(index).labels, average, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ({'model__label_type': 'marginal_smoothing_k11'}, 'names 11 classes, there are only 10'),
        ({'model__label_type': 'soft'}, 'expected one of ori, hard'),
        ({'model__crops': 0}, 'have to be positive'),
        ({'model__scale': (0.5, 1.5)}, 'scale up to 1'),
        ({'model__values': 'float64'}, 'use "float32" or "float16"'),
        (
            {'model__teacher__source__num_classes': 2, 'model__label_type': 'hard'},
            'c2/0.* is of class 2, the teacher',
        ),
        ({'train_dataloader__batch_size': 3}, 'does not read "train_dataloader.batch_size"'),
        ({'train_dataloader__dataset__data_prefix': 'nothing'}, 'nothing'),
        ({'model__reference': 'nothing'}, 'no store at nothing'),
    ],
)
def test_mistakes_are_named(data, tmp_path, more, message):
    with pytest.raises((UserError, FileNotFoundError), match=message):
        relabel(TINY, str(tmp_path / 'new'), options(data, **more))


def test_a_reference_with_other_images_or_crops(data, store, tmp_path):
    with pytest.raises(UserError, match=r'crops=5, but the reference .* has 8'):
        relabel(TINY, str(tmp_path / 'new'), options(data, model__reference=str(store), model__crops=5))
    other = {
        'train_dataloader__dataset__data_prefix': 'train/c0',
        'train_dataloader__dataset__with_label': False,
    }
    with pytest.raises(UserError, match=r'has no labels of "0.png"'):
        relabel(TINY, str(tmp_path / 'new'), options(data, model__reference=str(store), **other))


def test_other_settings_are_refused(data, store):
    with pytest.raises(UserError, match=r'(?s)begun with other inputs.*temperature: was 1.0, is 2.0'):
        relabel(TINY, str(store), options(data, model__temperature=2.0))


def test_full_disk(data, tmp_path, monkeypatch, small_blocks):
    calls = [4]

    def sync(file):
        calls[0] -= 1
        if calls[0] < 0:
            raise OSError(errno.ENOSPC, 'No space left on device')
        file.flush()

    with monkeypatch.context() as patch:
        patch.setattr('vfd.stores.writer._sync', sync)
        with pytest.raises(UserError, match='disk is full'):
            relabel(TINY, str(tmp_path / 'new'), options(data))
    relabel(TINY, str(tmp_path / 'whole'), options(data))
    relabel(TINY, str(tmp_path / 'new'), options(data))
    assert digest(tmp_path / 'new') == digest(tmp_path / 'whole')


def full_disk(patch, wanted: str):
    """No space is left for files that are written at once and named so."""

    def sync(path):
        if wanted in path.name:
            raise OSError(errno.ENOSPC, 'No space left on device')

    patch.setattr('vfd.stores.atomic.sync_file', sync)


@pytest.mark.parametrize('file', ['merged.bin', 'merged.jsonl'])
def test_full_disk_while_merging(data, store, tmp_path, monkeypatch, file):
    folder = tmp_path / 'new'
    shutil.copytree(store, folder)
    with monkeypatch.context() as patch:
        full_disk(patch, file)
        with pytest.raises(UserError, match=rf'disk is full: .*{file}.*run the same command again'):
            merge_relabelling(TINY, str(folder))
    assert digest(folder).items() >= digest(store).items()  # the shards are there
    merge_relabelling(TINY, str(folder))
    assert len(LabelStore(folder)) == 16 and not list(folder.glob('shard-*'))


def test_full_disk_for_a_report_or_a_picture(data, store, tmp_path, monkeypatch):
    rule = dict(thresholds=(0.05, 0.1, 0.99))
    with monkeypatch.context() as patch:
        full_disk(patch, 'skipped-')
        with pytest.raises(UserError, match=r'disk is full: .*skipped-00000-of-00001\.txt'):
            relabel(TINY, str(tmp_path / 'new'), options(data))
    relabel(TINY, str(tmp_path / 'new'), options(data))
    assert digest(tmp_path / 'new') == digest(store)
    with monkeypatch.context() as patch:
        full_disk(patch, 'categories.png')
        with pytest.raises(UserError, match=r'disk is full: .*categories\.png'):
            calibrate(str(store), str(tmp_path / 'calibrated'), rule)
    calibrate(str(store), str(tmp_path / 'calibrated'), rule)
    assert len(LabelStore(tmp_path / 'calibrated')) == 16


def test_a_merged_store_goes_on_and_says_that_it_takes_no_more(data, store, tmp_path):
    shutil.copytree(data / 'train', tmp_path / 'train')
    shutil.copytree(store, tmp_path / 'new')
    merge_relabelling(TINY, str(tmp_path / 'new'))
    merged = digest(tmp_path / 'new')['merged.bin']
    again = relabel(TINY, str(tmp_path / 'new'), options(tmp_path))
    assert again.images == 16 and set(again.skipped) == BROKEN
    before = digest(tmp_path / 'new')
    assert before['merged.bin'] == merged
    shutil.copy(data / 'train/c1/0.jpg', tmp_path / 'train/c1/3.png')  # it can be read now
    with pytest.raises(UserError, match=r"merged and takes no more records, such as that of 'c1/3\.png'"):
        relabel(TINY, str(tmp_path / 'new'), options(tmp_path))
    assert digest(tmp_path / 'new') == before


def test_names_are_relative_to_the_image_folder(data, tmp_path):
    listed = tmp_path / 'list.txt'
    listed.write_text('c1/1.png 1\nc0/2.png 0\n')
    images = source_images(
        dict(type='vfd.ImageListDataset', ann_file=str(listed), data_root=str(data), data_prefix='train')
    )
    assert [(image.name, image.ground_truth) for image in images] == [('c1/1.png', 1), ('c0/2.png', 0)]
    (unlabelled, *_) = source_images(dict(type='vfd.ImageFolderDataset', data_root=str(data / 'train')))
    assert (unlabelled.name, unlabelled.ground_truth) == ('c0/0.png', -1)
    listed.write_text('c1/1.png\nc0/2.png 0\n')
    dataset = dict(type='ImageListDataset', ann_file=str(listed), data_root=str(data), data_prefix='train')
    images = images_of(Config(dict(train_dataloader=dict(dataset=dataset), default_scope='vfd')))
    assert [image.ground_truth for image in images] == [-1, 0]
