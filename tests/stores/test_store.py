import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from vfd.errors import MissingFileError, UserError
from vfd.stores import Store, StoreWriter, fingerprint_files, merge, verify

FIELDS = {'logits': ('float16', (5,)), 'label': ('int32', ())}
PRINT = {'teacher': 'abc', 'sizes': (1, 2)}


def record(key):
    rng = np.random.default_rng(int(key.split('-')[1]))
    return rng.normal(size=5), int(rng.integers(100))


def keys(number):
    return [f'bild ä-{i}' for i in range(number)]


def write(path, names, rank=0, world_size=1, batch=7, rows=16, fingerprint=PRINT):
    with StoreWriter(path, FIELDS, fingerprint, rank, world_size, block_rows=rows) as writer:
        todo = [name for name in names[rank::world_size] if name not in writer.done]
        for first in range(0, len(todo), batch):
            part = todo[first : first + batch]
            values = [record(name) for name in part]
            writer.append(part, logits=np.stack([v[0] for v in values]), label=[v[1] for v in values])


def content(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_round_trip(tmp_path):
    write(tmp_path / 's', keys(50))
    store = Store(tmp_path / 's')
    assert store.keys == keys(50) and len(store) == 50 and 'bild ä-3' in store and 'x' not in store
    assert store['bild ä-17']['logits'].dtype == np.float16
    for name in keys(50):
        logits, label = record(name)
        np.testing.assert_array_equal(store[name]['logits'], logits.astype(np.float16))
        assert store[name]['label'] == label
    assert isinstance(store.array('logits'), np.memmap) and store.array('logits').shape == (50, 5)
    batch = store.read(['bild ä-9', 'bild ä-2'])
    assert batch['label'].tolist() == [record('x-9')[1], record('x-2')[1]]
    assert store.fingerprint == {'teacher': 'abc', 'sizes': [1, 2]} and store.fields == FIELDS
    assert verify(tmp_path / 's') == []
    with pytest.raises(KeyError, match='absent'):
        store['absent']
    with pytest.raises(UserError, match='no field'):
        store.array('pooled')


def test_bytes_do_not_depend_on_batches_and_pauses(tmp_path):
    names = keys(61)
    write(tmp_path / 'whole', names, batch=61)
    for stop in (5, 16, 40):
        write(tmp_path / 'parts', names[:stop], batch=3)
    write(tmp_path / 'parts', names, batch=11)
    write(tmp_path / 'parts', names)  # nothing to do
    assert content(tmp_path / 'whole') == content(tmp_path / 'parts')


def test_exception_keeps_records_and_leaves_the_shard_unfinished(tmp_path):
    with pytest.raises(RuntimeError), StoreWriter(tmp_path / 's', FIELDS, PRINT, block_rows=16) as writer:
        writer.append(['a-1'], logits=np.zeros((1, 5)), label=[3])
        raise RuntimeError
    with pytest.raises(UserError, match='not finished'):
        Store(tmp_path / 's')
    with StoreWriter(tmp_path / 's', FIELDS, PRINT, block_rows=16) as writer:
        assert writer.done == {'a-1'}
    assert Store(tmp_path / 's')['a-1']['label'] == 3


@pytest.mark.parametrize('cut', ['data', 'index'])
def test_cut_at_any_byte_then_resume_is_equal(tmp_path, cut):
    """What a kill leaves: a prefix of the index, or data ahead of the index by any number of bytes."""
    names = keys(20)
    write(tmp_path / 'whole', names, rows=4, batch=4)
    whole = content(tmp_path / 'whole')
    data, index = whole['shard-00000-of-00001.bin'], whole['shard-00000-of-00001.jsonl']
    lines = index.splitlines(keepends=True)
    trial = tmp_path / 'trial'
    trial.mkdir()
    size = len(data) // 20 * 4
    states = []
    if cut == 'data':
        states = [(data[: size + extra], lines[0]) for extra in range(size)]
    else:
        states = [
            (data[: 2 * size], index[:end])
            for end in range(len(lines[0]), len(lines[0]) + len(lines[1]) + 1, 3)
        ]
    for stored, indexed in states:
        (trial / 'meta.json').write_bytes(whole['meta.json'])
        (trial / 'shard-00000-of-00001.bin').write_bytes(stored)
        (trial / 'shard-00000-of-00001.jsonl').write_bytes(indexed)
        with StoreWriter(trial, FIELDS, PRINT, block_rows=4) as writer:
            complete = indexed.count(b'\n')
            assert writer.done == set(names[: 4 * complete])
        write(trial, names, rows=4)
        assert content(trial) == whole


WRITER = """
import sys, time
import numpy as np
from vfd.stores import StoreWriter
fields = {'x': ('float32', (64,))}
with StoreWriter(sys.argv[1], fields, {'a': 1}, block_rows=8) as writer:
    print('open', flush=True)
    for i in range(400):
        key = f'k{i}'
        if key not in writer.done:
            writer.append([key], x=np.random.default_rng(i).normal(size=(1, 64)))
            time.sleep(float(sys.argv[2]))
"""


def test_kill_9_then_resume_equals_uninterrupted(tmp_path):
    script = tmp_path / 'writer.py'
    script.write_text(WRITER)
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    subprocess.run(
        [sys.executable, script, tmp_path / 'whole', '0'], env=env, check=True, capture_output=True
    )
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, script, tmp_path / 'killed', '0.002'], env=env, stdout=subprocess.PIPE
        )
        child.stdout.readline()
        time.sleep(rng.uniform(0.02, 0.25))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        child.stdout.close()
    assert kills >= 3
    subprocess.run(
        [sys.executable, script, tmp_path / 'killed', '0'], env=env, check=True, capture_output=True
    )
    assert content(tmp_path / 'whole') == content(tmp_path / 'killed')
    assert verify(tmp_path / 'killed') == []


def test_power_cut_leaves_index_ahead_of_data(tmp_path):
    write(tmp_path / 'whole', keys(16), rows=4)
    write(tmp_path / 's', keys(16), rows=4)
    path = tmp_path / 's' / 'shard-00000-of-00001.bin'
    data = bytearray(path.read_bytes())
    data[-30:] = bytes(30)  # the last block never reached the disk
    path.write_bytes(data)
    with StoreWriter(tmp_path / 's', FIELDS, PRINT, block_rows=4) as writer:
        assert writer.done == set(keys(12))
    write(tmp_path / 's', keys(16), rows=4)
    assert content(tmp_path / 's') == content(tmp_path / 'whole')


def test_flipped_bit_is_found_and_named(tmp_path):
    write(tmp_path / 's', keys(50))
    path = tmp_path / 's' / 'shard-00000-of-00001.bin'
    data = bytearray(path.read_bytes())
    data[37 * 14 + 5] ^= 4  # a record has 5 * 2 + 4 bytes
    path.write_bytes(data)
    (fault,) = verify(tmp_path / 's')
    assert 'shard-00000-of-00001.bin' in fault and 'record 37' in fault and "'bild ä-37'" in fault
    store = Store(tmp_path / 's')
    assert store['bild ä-36']['label'] == record('bild ä-36')[1]
    for _ in range(2):
        with pytest.raises(UserError, match=r"record 37 \('bild ä-37'\) differs from its checksum"):
            store.read(['bild ä-36', 'bild ä-37'])
    with pytest.raises(UserError, match='record 37'):  # nor does a merge give it a new checksum
        merge(tmp_path / 's')
    assert verify(tmp_path / 's') == [fault]


def test_every_flipped_bit_of_the_index_is_found(tmp_path):
    write(tmp_path / 's', keys(5), rows=4)
    path = tmp_path / 's' / 'shard-00000-of-00001.jsonl'
    index = path.read_bytes()
    for position in range(0, len(index), 5):
        for bit in (0, 3, 6):
            changed = bytearray(index)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            assert verify(tmp_path / 's'), changed
    path.write_bytes(index)
    assert verify(tmp_path / 's') == []


def test_damaged_index_in_the_middle_stops_the_writer(tmp_path):
    write(tmp_path / 's', keys(50))
    path = tmp_path / 's' / 'shard-00000-of-00001.jsonl'
    path.write_bytes(b'#' + path.read_bytes()[1:])
    with pytest.raises(UserError, match='line 1 is damaged'):
        write(tmp_path / 's', keys(50))


def test_truncated_shard(tmp_path):
    write(tmp_path / 's', keys(50))
    path = tmp_path / 's' / 'shard-00000-of-00001.bin'
    before = content(tmp_path / 's')
    path.write_bytes(path.read_bytes()[: 40 * 14 + 3])
    with pytest.raises(
        UserError, match=r"shard-00000-of-00001.bin.*records from 40 \('bild ä-40'\) on are missing"
    ):
        Store(tmp_path / 's')
    assert len(verify(tmp_path / 's')) == 1
    write(tmp_path / 's', keys(50))  # resume computes them again
    assert content(tmp_path / 's') == before


def test_changed_inputs_are_refused(tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    (images / 'a').write_bytes(b'123')
    before = fingerprint_files(['a', 'gone'], images)
    assert before['files'] == 2 and before['bytes'] == 3
    (images / 'a').write_bytes(b'1234')
    after = fingerprint_files(['a', 'gone'], images)
    write(tmp_path / 's', keys(5), fingerprint={**PRINT, 'images': before})
    with pytest.raises(UserError, match=r'images.bytes: was 3, is 4'):
        write(tmp_path / 's', keys(5), fingerprint={**PRINT, 'images': after})
    with pytest.raises(UserError, match='shards: was 1, is 2'):
        write(tmp_path / 's', keys(5), fingerprint={**PRINT, 'images': before}, world_size=2)
    with pytest.raises(UserError, match='fields'):
        StoreWriter(tmp_path / 's', {'x': ('float32', ())}, PRINT)
    assert fingerprint_files(['b'], images) != fingerprint_files(['c'], images)


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_merge_does_not_depend_on_shards(tmp_path, world_size):
    names = keys(40)
    path = tmp_path / 's'
    for rank in range(world_size):
        write(path, names, rank, world_size)
    if world_size > 1:
        with pytest.raises(UserError, match='merge'):
            Store(path).array('label')
    before = {name: Store(path)[name]['label'].item() for name in names}
    merge(path)
    merge(path)
    assert sorted(file.name for file in path.iterdir()) == ['merged.bin', 'merged.jsonl', 'meta.json']
    store = Store(path)
    assert store.keys == sorted(names) and verify(path) == []
    assert {name: store[name]['label'].item() for name in names} == before
    assert store.array('label').tolist() == [before[name] for name in sorted(names)]
    write(path, names, 0, world_size)  # an idle second run
    one = tmp_path / 'one'
    write(one, names)
    merge(one)
    assert {k: v for k, v in content(path).items() if k != 'meta.json'} == {
        k: v for k, v in content(one).items() if k != 'meta.json'
    }


def test_merge_refuses_unfinished(tmp_path):
    write(tmp_path / 's', keys(10), 0, 2)
    before = content(tmp_path / 's')
    with pytest.raises(UserError, match='shard-00001-of-00002 is absent'):
        merge(tmp_path / 's')
    assert content(tmp_path / 's') == before


def test_empty_store(tmp_path):
    write(tmp_path / 's', [])
    store = Store(tmp_path / 's')
    assert len(store) == 0 and store.array('logits').shape == (0, 5) and verify(tmp_path / 's') == []
    merge(tmp_path / 's')
    assert len(Store(tmp_path / 's')) == 0


def test_mistakes_of_the_caller(tmp_path):
    with StoreWriter(tmp_path / 's', FIELDS, PRINT) as writer:
        with pytest.raises(ValueError, match="fields \\['logits'\\] were given"):
            writer.append(['a'], logits=np.zeros((1, 5)))
        with pytest.raises(ValueError, match="'logits' has shape"):
            writer.append(['a'], logits=np.zeros((1, 4)), label=[1])
        with pytest.raises(ValueError, match='given twice'):
            writer.append(['a', 'a'], logits=np.zeros((2, 5)), label=[1, 2])
        writer.append(['a'], logits=np.zeros((1, 5)), label=[1])
        with pytest.raises(ValueError, match='written before'):
            writer.append(['a'], logits=np.zeros((1, 5)), label=[1])
        with pytest.raises(UserError, match='another process'):
            StoreWriter(tmp_path / 's', FIELDS, PRINT)


def test_not_a_store(tmp_path):
    for action in (Store, verify, merge):
        with pytest.raises(MissingFileError, match='no store at'):
            action(tmp_path / 'absent')
    (tmp_path / 'meta.json').write_text(json.dumps({'format': 'other'}))
    with pytest.raises(UserError, match='format'):
        Store(tmp_path)
    assert 'format' in verify(tmp_path)[0]


def test_file_names_that_are_not_unicode(tmp_path):
    name = b'caf\xe9.jpg'.decode(errors='surrogateescape')
    assert fingerprint_files([name], tmp_path)['files'] == 1
    with StoreWriter(tmp_path / 's', FIELDS, PRINT) as writer:
        writer.append([name], logits=np.zeros((1, 5)), label=[1])
    assert Store(tmp_path / 's').keys == [name] and verify(tmp_path / 's') == []
