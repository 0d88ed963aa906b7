"""Stores with ragged fields keep every promise of fixed ones."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from vfd.errors import UserError
from vfd.stores import Ragged, RaggedField, Store, StoreWriter, merge, verify

FIELDS = {
    'score': ('float16', (2,)),
    'boxes': RaggedField('float32', (4,)),
    'label': ('int32', ()),
    'rpn.0': RaggedField('uint8', ()),
}
SHARD = 'shard-00000-of-00001'
FIXED_INDEX = (
    b'{"keys":["k","m"],"crc32":[3051011745,2507351169],"sha256":"'
    b'4c9c4f354e74153db012329d71c8562ec23e498148174b2c49de58f45d47cdbe"}\n{"end":2}\n'
)


def record(key):
    """Every third record has no box."""
    rng = np.random.default_rng(int(key.split('-')[1]))
    count = int(rng.integers(1, 6)) * (int(key.split('-')[1]) % 3 > 0)
    ids = rng.integers(0, 255, int(rng.integers(0, 4)), np.uint8)
    return rng.normal(size=2), rng.normal(size=(count, 4)).astype(np.float32), int(rng.integers(99)), ids


def keys(number):
    return [f'bild ä-{i}' for i in range(number)]


def write(path, names, rank=0, world_size=1, batch=7, rows=16, fields=FIELDS):
    with StoreWriter(path, fields, {'teacher': 'abc'}, rank, world_size, block_rows=rows) as writer:
        todo = [name for name in names[rank::world_size] if name not in writer.done]
        for first in range(0, len(todo), batch):
            part = todo[first : first + batch]
            score, boxes, label, ids = zip(*map(record, part), strict=True)
            ragged = {'boxes': Ragged.of(boxes), 'rpn.0': Ragged.of(ids)}
            writer.append(part, score=np.stack(score), label=label, **ragged)


def content(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def assert_records(store, names):
    batch = store.read(names)
    assert batch['boxes'].counts.dtype == np.int64 and batch['boxes'].values.dtype == np.float32
    boxes, ids = batch['boxes'].split(), batch['rpn.0'].split()
    for number, name in enumerate(names):
        score, expected, label, expected_ids = record(name)
        np.testing.assert_array_equal(boxes[number], expected)
        np.testing.assert_array_equal(ids[number], expected_ids)
        np.testing.assert_array_equal(store[name]['boxes'], expected)
        np.testing.assert_array_equal(batch['score'][number], score.astype(np.float16))
        assert batch['label'][number] == label


def test_round_trip(tmp_path):
    names = keys(50)
    write(tmp_path, names)
    store = Store(tmp_path)
    assert store.keys == names and store.fields == FIELDS and verify(tmp_path) == []
    assert_records(store, names[::-1])
    assert_records(store, ['bild ä-17', 'bild ä-3', 'bild ä-17'])
    boxes = store.array('boxes')
    assert isinstance(boxes.values, np.memmap) and boxes.values.shape[1:] == (4,)
    np.testing.assert_array_equal(boxes.split()[49], record(names[49])[1])
    none = store.read([])
    assert none['boxes'].values.shape == (0, 4) and none['score'].shape == (0, 2)


def test_tensors_are_written_too(tmp_path):
    samples = [torch.randn(3, 4), torch.randn(0, 4)]
    with StoreWriter(tmp_path, {'boxes': RaggedField('float32', (4,))}, {}) as writer:
        writer.append(['a', 'b'], boxes=Ragged.of(samples))
    np.testing.assert_array_equal(Store(tmp_path)['a']['boxes'], samples[0])
    assert Store(tmp_path)['b']['boxes'].shape == (0, 4)


def test_the_plan_counts_rows(tmp_path):
    writer = StoreWriter(tmp_path, FIELDS, {})
    fixed = 2 * 2 + 4 + 4 + 4  # score, count of boxes, label, count of rpn.0
    assert writer.meta.record_bytes(boxes=2.5, **{'rpn.0': 3}) == fixed + 2.5 * 16 + 3
    names = keys(30)
    writer.close()
    write(tmp_path / 's', names)
    mean = {
        'boxes': np.mean([len(record(k)[1]) for k in names]),
        'rpn.0': np.mean([len(record(k)[3]) for k in names]),
    }
    size = sum(len(data) for name, data in content(tmp_path / 's').items() if name.endswith('.bin'))
    assert abs(30 * Store(tmp_path / 's').meta.record_bytes(**mean) - size) <= 15


def test_bytes_do_not_depend_on_batches_and_pauses(tmp_path):
    names = keys(61)
    write(tmp_path / 'whole', names, batch=61)
    for stop in (5, 16, 40):
        write(tmp_path / 'parts', names[:stop], batch=3)
    write(tmp_path / 'parts', names, batch=11)
    write(tmp_path / 'parts', names)  # nothing to do
    assert content(tmp_path / 'whole') == content(tmp_path / 'parts')


@pytest.mark.parametrize('cut', ['.bin', '.boxes.bin', '.rpn.0.bin', '.jsonl'])
def test_cut_at_any_byte_then_resume_is_equal(tmp_path, cut):
    """Data are forced to the disk in this order, the index last: a kill leaves a prefix of one and of none after it."""
    names = keys(20)
    write(tmp_path / 'whole', names, rows=4, batch=4)
    write(tmp_path / 'first', names[:4], rows=4, batch=4)
    write(tmp_path / 'both', names[:8], rows=4, batch=4)
    whole = content(tmp_path / 'whole')
    before, after = content(tmp_path / 'first'), content(tmp_path / 'both')
    order = [SHARD + suffix for suffix in ('.bin', '.boxes.bin', '.rpn.0.bin', '.jsonl')]
    name = SHARD + cut
    index = [content[SHARD + '.jsonl'].rsplit(b'{"end"')[0] for content in (before, after)]
    before[SHARD + '.jsonl'], after[SHARD + '.jsonl'] = index
    trial = tmp_path / 'trial'
    trial.mkdir()
    for size in range(len(before[name]), len(after[name]) + 1):
        for file in order:
            state = after if order.index(file) < order.index(name) else before
            (trial / file).write_bytes(after[name][:size] if file == name else state[file])
        (trial / 'meta.json').write_bytes(whole['meta.json'])
        with StoreWriter(trial, FIELDS, {'teacher': 'abc'}, block_rows=4) as writer:
            complete = (trial / f'{SHARD}.jsonl').read_bytes().count(b'\n')
            assert writer.done == set(names[: 4 * complete])
        write(trial, names, rows=4)
        assert content(trial) == whole


WRITER = """
import sys, time
import numpy as np
from vfd.stores import Ragged, RaggedField, StoreWriter
fields = {'x': ('float32', (8,)), 'boxes': RaggedField('float32', (4,))}
with StoreWriter(sys.argv[1], fields, {'a': 1}, block_rows=8) as writer:
    print('open', flush=True)
    for i in range(400):
        key = f'k{i}'
        if key not in writer.done:
            rng = np.random.default_rng(i)
            boxes = Ragged.of([rng.normal(size=(int(rng.integers(0, 40)), 4))])
            writer.append([key], x=rng.normal(size=(1, 8)), boxes=boxes)
            time.sleep(float(sys.argv[2]))
"""


def test_kill_9_then_resume_equals_uninterrupted(tmp_path):
    script = tmp_path / 'writer.py'
    script.write_text(WRITER)
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    run = [sys.executable, script]
    subprocess.run([*run, tmp_path / 'whole', '0'], env=env, check=True, capture_output=True)
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(5):
        child = subprocess.Popen([*run, tmp_path / 'killed', '0.002'], env=env, stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.25))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        child.stdout.close()
    assert kills >= 3
    subprocess.run([*run, tmp_path / 'killed', '0'], env=env, check=True, capture_output=True)
    assert content(tmp_path / 'whole') == content(tmp_path / 'killed')
    assert verify(tmp_path / 'killed') == []


def test_power_cut_leaves_index_ahead_of_rows(tmp_path):
    write(tmp_path / 'whole', keys(16), rows=4)
    write(tmp_path / 's', keys(16), rows=4)
    path = tmp_path / 's' / f'{SHARD}.boxes.bin'
    data = bytearray(path.read_bytes())
    data[-30:] = bytes(30)  # the last block's rows never reached the disk
    path.write_bytes(data)
    with StoreWriter(tmp_path / 's', FIELDS, {'teacher': 'abc'}, block_rows=4) as writer:
        assert writer.done == set(keys(12))
    write(tmp_path / 's', keys(16), rows=4)
    assert content(tmp_path / 's') == content(tmp_path / 'whole')


def test_every_flipped_bit_is_found(tmp_path):
    write(tmp_path, keys(6), rows=4)
    for suffix in ('.bin', '.boxes.bin', '.rpn.0.bin', '.jsonl'):
        path = tmp_path / f'{SHARD}{suffix}'
        data = path.read_bytes()
        for position in range(0, len(data), 3):
            for bit in (0, 3, 6):
                changed = bytearray(data)
                changed[position] ^= 1 << bit
                path.write_bytes(changed)
                assert verify(tmp_path), (suffix, position, bit)
        path.write_bytes(data)
    assert verify(tmp_path) == []


def test_a_damaged_row_is_named(tmp_path):
    names = keys(20)
    write(tmp_path, names)
    path = tmp_path / f'{SHARD}.boxes.bin'
    data = bytearray(path.read_bytes())
    rows_before = sum(len(record(name)[1]) for name in names[:17])
    data[16 * rows_before + 5] ^= 4
    path.write_bytes(data)
    (fault,) = verify(tmp_path)
    assert 'record 17' in fault and "'bild ä-17'" in fault
    store = Store(tmp_path)
    assert_records(store, [name for name in names if name != names[17]])
    with pytest.raises(UserError, match='record 17'):
        store.read(names)
    with pytest.raises(UserError, match='record 17'):  # nor does a merge give it a new checksum
        merge(tmp_path)


def test_a_damaged_number_of_rows_is_named(tmp_path):
    write(tmp_path, keys(20))
    path = tmp_path / f'{SHARD}.bin'
    data = bytearray(path.read_bytes())
    data[16 * 3 + 4] ^= 64  # a record has 16 bytes; the number of boxes follows the score
    path.write_bytes(data)
    (fault,) = verify(tmp_path)
    assert 'records 0 to 15' in fault and "'boxes'" in fault
    store = Store(tmp_path)
    assert_records(store, keys(20)[:3])
    assert_records(store, keys(20)[16:])
    with pytest.raises(UserError, match='record 3'):
        store.read(['bild ä-3'])


def test_truncated_rows(tmp_path):
    write(tmp_path, keys(20))
    before = content(tmp_path)
    path = tmp_path / f'{SHARD}.rpn.0.bin'
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=r'rpn\.0\.bin has \d+ bytes.*rows of 1 bytes'):
        Store(tmp_path)
    write(tmp_path, keys(20))
    assert content(tmp_path) == before
    path.unlink()
    with pytest.raises(UserError, match='not finished'):
        Store(tmp_path)


@pytest.mark.parametrize('world_size', [1, 3])
def test_merge_does_not_depend_on_shards(tmp_path, world_size):
    names = keys(40)
    for rank in range(world_size):
        write(tmp_path / 's', names, rank, world_size)
    assert_records(Store(tmp_path / 's'), names)
    before = Store(tmp_path / 's').inputs
    merge(tmp_path / 's')
    merge(tmp_path / 's')
    expected = ['merged.bin', 'merged.boxes.bin', 'merged.jsonl', 'merged.rpn.0.bin', 'meta.json']
    assert sorted(content(tmp_path / 's')) == expected and verify(tmp_path / 's') == []
    store = Store(tmp_path / 's')
    assert store.keys == sorted(names) and store.inputs == before
    assert_records(store, names)
    write(tmp_path / 's', names, 0, world_size)  # an idle second run
    write(tmp_path / 'one', names[::-1])
    merge(tmp_path / 'one')
    one, several = content(tmp_path / 'one'), content(tmp_path / 's')
    assert [one[name] for name in expected[:4]] == [several[name] for name in expected[:4]]


def test_only_ragged_stores_have_the_second_format(tmp_path):
    write(tmp_path / 'ragged', [])
    assert len(Store(tmp_path / 'ragged')) == 0 and verify(tmp_path / 'ragged') == []
    assert '"vfd-store-2"' in (tmp_path / 'ragged' / 'meta.json').read_text()
    with StoreWriter(tmp_path / 'fixed', {'x': ('float32', (2,))}, {'a': [1]}, block_rows=4) as writer:
        writer.append(['k', 'm'], x=np.arange(4).reshape(2, 2))
    # Format 1 as it was before there were ragged fields, byte for byte.
    assert content(tmp_path / 'fixed') == {
        'meta.json': b'{\n "format": "vfd-store-1",\n "fields": {\n  "x": [\n   "float32",\n   [\n    2\n   ]\n  ]\n'
        b' },\n "fingerprint": {\n  "a": [\n   1\n  ]\n },\n "world_size": 1,\n "block_rows": 4\n}\n',
        f'{SHARD}.bin': np.arange(4, dtype='<f4').tobytes(),
        f'{SHARD}.jsonl': FIXED_INDEX,
    }
    meta = tmp_path / 'ragged' / 'meta.json'
    meta.write_text(meta.read_text().replace('vfd-store-2', 'vfd-store-1'))
    with pytest.raises(UserError, match='vfd-store-1'):
        Store(tmp_path / 'ragged')


def test_a_field_that_became_ragged_is_another_one(tmp_path):
    write(tmp_path, keys(5))
    with pytest.raises(UserError, match='fields'):
        StoreWriter(tmp_path, {**FIELDS, 'boxes': ('float32', (4,))}, {'teacher': 'abc'}, block_rows=16)


def test_mistakes_of_the_caller(tmp_path):
    fields = {'boxes': RaggedField('float32', (4,))}
    with StoreWriter(tmp_path, fields, {}) as writer:
        with pytest.raises(ValueError, match=r"'boxes' is ragged.*2 records"):
            writer.append(['a', 'b'], boxes=np.zeros((2, 4)))
        with pytest.raises(ValueError, match=r"'boxes' is ragged.*2 records"):
            writer.append(['a', 'b'], boxes=Ragged.of([np.zeros((1, 4))]))
        with pytest.raises(ValueError, match=r"'boxes' has shape \(1, 5\), expected \(1, 4\)"):
            writer.append(['a'], boxes=Ragged.of([np.zeros((1, 5))]))
        assert writer.done == set()
