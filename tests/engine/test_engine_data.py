"""Samples: bad ones, wrapped data sets, batch samplers."""

import contextlib
import copy
import errno
import multiprocessing
import pickle

import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from PIL import UnidentifiedImageError
from torch.utils.data import BatchSampler

from vfd.engine import EpochTrainLoop, IterTrainLoop, SampleStream
from vfd.engine.bad_data import BadSample, is_bad_data
from vfd.engine.stream import SampleIndex, _spread
from vfd.errors import BadDataError, MissingFileError, UserError

BAD = {'dataset': {'bad': (3, 4, 5, 17)}}


@pytest.mark.parametrize('workers', [0, 2])
def test_bad_samples_are_replaced_counted_and_named(workers, toy, tmp_path, caplog):
    runner = toy.make_runner(tmp_path, workers=workers, **BAD)
    recorder = toy.Recorder()
    runner.register_hook(recorder)
    runner.train()
    files = [name for batch in recorder.files.values() for name in batch]
    assert len(files) == 3 * 26
    bad = [f'img_{i}.png' for i in (3, 4, 5, 17)]
    assert not set(files) & set(bad)
    lines = (tmp_path / 'bad_data.txt').read_text().splitlines()
    assert sorted(lines) == sorted(f'{name}\t{name} is truncated' for name in bad)
    assert all(runner.bad_data.counts[name] >= 3 for name in bad)
    text = next(tmp_path.rglob('*.log')).read_text()
    total = sum(runner.bad_data.counts.values())
    assert f'{total} so far, from 4 files named in {tmp_path}/bad_data.txt' in text
    assert text.count('samples skipped') == 3  # once an epoch


def test_replacements_depend_on_the_draw_alone(toy, tmp_path):
    toy.assert_same(toy.train(tmp_path / 'a', **BAD), toy.train(tmp_path / 'b', workers=2, **BAD))


@pytest.mark.parametrize('loop', [{}, {'by_epoch': False, 'length': 5}], ids=['epoch', 'iterations'])
@pytest.mark.parametrize('nan_at', [None, 3], ids=['finished', 'failed'])
@pytest.mark.parametrize('persistent', [False, True])
def test_no_worker_outlives_the_training(persistent, nan_at, loop, toy, tmp_path):
    runner = toy.make_runner(
        tmp_path, workers=2, nan_at=nan_at, loader={'persistent_workers': persistent}, **loop
    )
    with contextlib.suppress(UserError):
        runner.train()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize('workers', [0, 2])
def test_strict_data_stops_at_the_first(workers, toy, tmp_path):
    with pytest.raises(
        BadDataError, match=r'^img_\d+\.png: img_\d+\.png is truncated \(strict_data=True'
    ) as error:
        toy.train(tmp_path, workers=workers, loader={'strict_data': True}, **BAD)
    assert 'Traceback' not in str(error.value)


def test_strict_data_of_the_whole_run(toy, tmp_path):
    with pytest.raises(BadDataError):
        toy.train(tmp_path, cfg={'strict_data': True}, **BAD)


@pytest.mark.parametrize('workers', [0, 2])
def test_all_bad(workers, toy, tmp_path):
    with pytest.raises(UserError, match=r'^26 samples tried .* and none can be used\. The first is img_'):
        toy.train(tmp_path, workers=workers, dataset={'bad': range(26)})


@pytest.mark.parametrize('loop', [{}, {'by_epoch': False, 'length': 3}], ids=['epoch', 'iterations'])
def test_empty(loop, toy, tmp_path):
    with pytest.raises(UserError, match='ToyDataset is empty'):
        toy.train(tmp_path, dataset={'length': 0}, **loop)


def test_less_than_a_batch(toy, tmp_path):
    with pytest.raises(UserError, match='3 samples, less than one batch of 4'):
        toy.train(tmp_path, dataset={'length': 3}, loader={'drop_last': True})


def test_bad_samples_of_a_validation_are_left_out(toy, tmp_path):
    runner = toy.make_runner(tmp_path, length=1)
    loader = runner.build_dataloader(runner._val_dataloader)
    loader.stream.dataset.bad = {0, 3, 4, 5}  # the second batch loses all of its samples
    assert [len(batch['inputs']) for batch in loader] == [2]
    assert len(runner.bad_data.counts) == 4
    loader.stream.dataset.bad = set(range(6))
    with pytest.raises(UserError, match='none of the 6 samples'):
        list(loader)


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (BadDataError('truncated'), True),
        (UnidentifiedImageError('cannot identify image file'), True),
        (OSError('image file is truncated'), True),
        (FileNotFoundError(errno.ENOENT, 'no such file'), True),
        (AssertionError('failed to load image: a.jpg'), True),
        (MissingFileError('no list of classes'), False),
        (OSError(errno.EMFILE, 'too many open files'), False),
        (AssertionError('expected two boxes'), False),
        (ValueError('shapes differ'), False),
        (UserError('a mistake in the config'), False),
    ],
)
def test_whose_fault(error, expected):
    assert is_bad_data(error) is expected


def test_opencv_complains_about_an_empty_file():
    cv2 = pytest.importorskip('cv2')
    import numpy as np

    with pytest.raises(cv2.error) as raised:
        cv2.imdecode(np.zeros(0, np.uint8), 1)
    assert is_bad_data(raised.value)
    with pytest.raises(cv2.error) as raised:
        cv2.resize(np.zeros((0, 0), np.uint8), (4, 4))
    assert not is_bad_data(raised.value)


@pytest.mark.parametrize('error', [ValueError('a defect'), UserError('a mistake')])
def test_other_errors_of_a_pipeline_are_not_hidden(error, toy, tmp_path):
    class Raise:
        def __call__(self, sample):
            raise error

    stream = SampleStream(toy.ToyDataset(), 0, training=True, strict=False)
    stream.dataset.prepare_data = Raise()
    if isinstance(error, UserError):
        assert stream.__getitems__([SampleIndex(0, 0, 0)])[0].error == 'a mistake'
    else:
        with pytest.raises(ValueError, match='a defect'):
            stream.__getitems__([SampleIndex(0, 0, 0)])


@pytest.mark.parametrize('length', [1, 2, 3, 10, 997])
def test_replacements_reach_every_sample(length):
    for index in {0, length // 2, length - 1}:
        found = list(_spread(index, length))
        assert found[0] == index
        assert sorted(found) == list(range(length))


def test_the_generators_of_the_main_process_are_left_alone(toy):
    stream = SampleStream(toy.ToyDataset(), 0, training=True, strict=False)
    before = torch.get_rng_state()
    first = stream.__getitems__([SampleIndex(0, 0, 0), SampleIndex(0, 0, 1)])
    again = stream.__getitems__([SampleIndex(0, 0, 1)])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first[1].sample['inputs'], again[0].sample['inputs'])
    assert not torch.equal(first[0].sample['inputs'], again[0].sample['inputs'])


def test_a_stream_looks_like_its_data_set(toy):
    dataset = toy.ToyDataset()
    for stream in (SampleStream(dataset, 0, training=True, strict=False),):
        for twin in (stream, pickle.loads(pickle.dumps(stream)), copy.deepcopy(stream)):
            assert twin.metainfo == dataset.metainfo
            assert twin.get_data_info(2)['img_path'] == 'img_2.png'
            assert len(twin) == 26
            assert twin[2]['data_samples'].img_path == 'img_2.png'
            assert not hasattr(twin, 'datasets')
    stream.pipeline = 'another'
    assert dataset.pipeline == 'another'


def test_wrapped_data_sets(toy, tmp_path):
    both = {
        'type': RepeatDataset,
        'times': 2,
        'dataset': toy.ToyDataset(length=5),
    }
    runner = toy.make_runner(tmp_path, length=1)
    loader = runner.build_train_dataloader({**runner._train_dataloader, 'dataset': both})
    files = [sample.img_path for batch in loader for sample in batch['data_samples']]
    assert sorted(files) == sorted(f'img_{i}.png' for i in range(5) for _ in range(2))
    concat = ConcatDataset([toy.ToyDataset(length=5), toy.ToyDataset(length=3, bad={1})])
    loader = runner.build_train_dataloader({**runner._train_dataloader, 'dataset': concat})
    assert loader.dataset.metainfo['classes'] == ('a', 'b', 'c')
    assert sum(len(batch['inputs']) for batch in loader) == 8
    assert list(runner.bad_data.counts) == ['img_1.png']


class ByLabel(BatchSampler):
    """Batches of one label each, as mmdet makes batches of one aspect ratio."""

    def __init__(self, sampler, batch_size):
        super().__init__(sampler, batch_size, drop_last=False)

    def __iter__(self):
        waiting = {0: [], 1: [], 2: []}
        for index in self.sampler:
            group = waiting[self.sampler.dataset.get_data_info(index)['label']]
            group.append(index)
            if len(group) == self.batch_size:
                yield group[:]
                group.clear()
        yield from (group for group in waiting.values() if group)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('loop', [{}, {'by_epoch': False, 'length': 14, 'sampler': 'DefaultSampler'}])
def test_batch_samplers_resume_too(loop, workers, toy, tmp_path):
    loader = {'batch_sampler': {'type': ByLabel}, 'persistent_workers': workers > 0}
    options = {'loader': loader, 'workers': workers, 'every': 5, 'val': False, **loop}
    whole = toy.train(tmp_path / 'whole', **options)
    for batch in whole['files'].values():
        assert len({int(name[4:-4]) % 3 for name in batch}) == 1
    rest = toy.train(
        tmp_path / 'run', resume=True, load_from=str(tmp_path / 'whole' / 'iter_10.pth'), **options
    )
    assert min(rest['losses']) == 10
    toy.assert_same(whole['weights'], rest['weights'])


@pytest.mark.parametrize(
    ('named', 'expected'),
    [
        ({'by_epoch': True, 'max_epochs': 1}, EpochTrainLoop),
        ({'by_epoch': False, 'max_iters': 1}, IterTrainLoop),
        ({'type': 'EpochBasedTrainLoop', 'max_epochs': 1}, EpochTrainLoop),
        ({'type': 'mmengine.IterBasedTrainLoop', 'max_iters': 1}, IterTrainLoop),
        ({'type': EpochTrainLoop.__base__, 'max_epochs': 1}, EpochTrainLoop),
    ],
)
def test_the_loops_of_mmengine_are_replaced(named, expected, toy, tmp_path):
    runner = toy.make_runner(tmp_path)
    loop = runner.build_train_loop(named)
    assert type(loop) is expected
    assert runner.build_train_loop(loop) is loop


def test_a_name_is_written_once(toy, tmp_path):
    log = toy.make_runner(tmp_path).bad_data
    log.add([BadSample('a.png', 'two\nlines'), BadSample('a.png', 'again')])
    later = toy.make_runner(tmp_path).bad_data
    later.add([BadSample('a.png', 'once more')])
    assert (tmp_path / 'bad_data.txt').read_text() == 'a.png\ttwo lines\n'
    assert log.counts['a.png'] == 2
