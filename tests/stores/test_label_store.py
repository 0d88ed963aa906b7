"""Label stores: what goes in comes out, a crop is read alone, damage is named."""

import errno
import pickle
import re

import numpy as np
import pytest

from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.stores import (
    LabelForm,
    LabelledImage,
    LabelStore,
    LabelStoreWriter,
    StoredCrops,
    StoreWriter,
    UnfinishedStoreError,
    label_store,
    merge,
    verify_labels,
)

SHAPES = {
    'ori': lambda classes: (classes,),
    'hard': lambda classes: (),
    'smoothing': lambda classes: (2,),
    'marginal_smoothing_k3': lambda classes: (2, 3),
}


def form_of(label_type='marginal_smoothing_k3', classes=7, crops=5, **kwargs) -> LabelForm:
    return LabelForm(label_type, SHAPES[label_type](classes), classes, crops, **kwargs)


def image_of(form: LabelForm, number: int, size=(40, 60)) -> LabelledImage:
    rng = np.random.default_rng(number)
    corner = rng.integers(0, 20, (form.crops, 2))
    boxes = np.concatenate([corner, rng.integers(1, 20, (form.crops, 2))], axis=1)
    if form.label_type == 'ori':
        labels = rng.dirichlet(np.ones(form.classes), form.crops).astype(np.float32)
    else:
        k = form.shape[1] if len(form.shape) == 2 else 1
        ids = np.stack([rng.choice(form.classes, k, replace=False) for _ in range(form.crops)])
        values = np.sort(rng.dirichlet(np.ones(k + 1), form.crops)[:, :k])[:, ::-1]
        pair = np.stack([ids, values], axis=1).astype(np.float32)
        labels = pair.reshape(form.crops, *form.shape) if form.shape else ids[:, 0]
    category = rng.integers(0, 3, form.crops) if form.calibrated else None
    crops = StoredCrops(boxes, rng.random(form.crops) < 0.5, labels)
    return LabelledImage(f'a/{number}.jpg', size, crops, number % form.classes, (100 + number, 7), category)


def write(folder, form: LabelForm, count=6, **kwargs) -> list[LabelledImage]:
    images = [image_of(form, number) for number in range(count)]
    with LabelStoreWriter(folder, form, {'teacher': 'none'}, **kwargs) as writer:
        for image in images:
            if image.name not in writer.done:
                writer.append(image)
    return images


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(label_store, 'BLOCK_CROPS', 10)


@pytest.mark.parametrize('label_type', SHAPES)
@pytest.mark.parametrize('values', ['float32', 'float16'])
@pytest.mark.parametrize('crops', [1, 8, 13])
def test_round_trip(tmp_path, label_type, values, crops):
    form = form_of(label_type, crops=crops, values=values)
    images = write(tmp_path, form)
    store = pickle.loads(pickle.dumps(LabelStore(tmp_path)))  # as a worker process gets it
    assert len(store) == 6 and store.crops == crops and store.label_type == label_type
    assert store.origin == {'teacher': 'none'} and store.form == (
        form if form.shape else form_of('hard', crops=crops)
    )
    for image in images:
        index = store.index_of(image.name)
        assert store.names[index] == image.name and store.image_size(index) == image.size
        assert store.ground_truth(index) == image.ground_truth and store.file(index) == image.file
        rows = np.random.default_rng(0).permutation(crops)[:4]
        part, whole = store.read(index, rows), store.read(index)
        np.testing.assert_array_equal(store.kept(index), np.arange(crops))
        for name in ('boxes', 'flip', 'labels'):
            wanted = getattr(image.crops, name)
            np.testing.assert_allclose(
                getattr(whole, name), wanted, atol=2.5e-4 if values == 'float16' else 0
            )
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[rows])
    assert verify_labels(tmp_path) == []


def test_calibrated_store_knows_what_it_kept(tmp_path):
    images = write(tmp_path, form_of(calibrated=True))
    store = LabelStore(tmp_path)
    for index, image in enumerate(images):
        np.testing.assert_array_equal(store.kept(index), np.flatnonzero(image.category))
        np.testing.assert_array_equal(store.image(index).category, image.category)


def test_size_of_a_record():
    """500 crops with five classes: 38 bytes a crop, one bit for the flip, 28 bytes for the image."""
    form = LabelForm('marginal_smoothing_k5', (2, 5), 1000, 500)
    size = np.dtype([(name, kind, shape) for name, (kind, shape) in form.fields().items()]).itemsize
    assert size == 500 * 38 + 63 + 28 < 19 * 1024


def test_many_classes_and_large_images(tmp_path):
    form = form_of(classes=70000, wide=True)
    image = image_of(form, 3, size=(70000, 80000))
    image.crops.boxes[:, :2] = (65000, 79000)
    image.crops.labels[:, 0] = np.arange(69990, 69993)
    with LabelStoreWriter(tmp_path, form, {}) as writer:
        writer.append(image)
    stored = LabelStore(tmp_path).read(0)
    np.testing.assert_array_equal(stored.boxes, image.crops.boxes)
    np.testing.assert_array_equal(stored.labels, image.crops.labels)


def test_image_too_large_for_the_store(tmp_path):
    form = form_of()
    with LabelStoreWriter(tmp_path, form, {}) as writer, pytest.raises(BadDataError, match='70000 pixels'):
        writer.append(image_of(form, 0, size=(70000, 10)))


def test_shards_merge_into_what_one_process_writes(tmp_path, small_blocks):
    form = form_of()
    images = [image_of(form, number) for number in range(9)]
    for folder, world_size in (('one', 1), ('two', 2)):
        for rank in range(world_size):
            with LabelStoreWriter(tmp_path / folder, form, {}, rank, world_size) as writer:
                for image in images[rank::world_size]:
                    writer.append(image)
        merge(tmp_path / folder)
    for name in ('merged.bin', 'merged.jsonl'):
        assert (tmp_path / 'one' / name).read_bytes() == (tmp_path / 'two' / name).read_bytes()
    assert LabelStore(tmp_path / 'two').names == sorted(image.name for image in images)


def test_cut_at_every_byte_it_goes_on(tmp_path, small_blocks):
    """A kill leaves some prefix of the data and of the index; what is written afterwards is the same."""
    form = form_of()
    write(tmp_path / 'whole', form, 5)
    data, index = ('shard-00000-of-00001.bin', 'shard-00000-of-00001.jsonl')
    whole = {name: (tmp_path / 'whole' / name).read_bytes() for name in (data, index)}
    meta = (tmp_path / 'whole/meta.json').read_bytes()
    lines = whole[index].split(b'\n')
    cuts = [(b, i) for b in range(0, len(whole[data]), 83) for i in range(0, len(whole[index]), 97)]
    assert len(lines) > 3
    folder = tmp_path / 'cut'
    folder.mkdir()
    (folder / 'meta.json').write_bytes(meta)
    for bytes_of_data, bytes_of_index in cuts:
        (folder / data).write_bytes(whole[data][:bytes_of_data])
        (folder / index).write_bytes(whole[index][:bytes_of_index])
        with pytest.raises(UserError):
            LabelStore(folder)
        written = label_store.written_files(folder)
        assert set(written.items()) <= {(f'a/{n}.jpg', (100 + n, 7)) for n in range(5)}
        write(folder, form, 5)
        for name, content in whole.items():
            assert (folder / name).read_bytes() == content, (bytes_of_data, bytes_of_index, name)


def test_truncated_shard(tmp_path):
    write(tmp_path, form_of())
    file = tmp_path / 'shard-00000-of-00001.bin'
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r'shard-00000-of-00001.bin.*a/5\.jpg'):
        LabelStore(tmp_path)
    assert 'a/5.jpg' in verify_labels(tmp_path)[0]


def test_flipped_bit_is_found(tmp_path):
    write(tmp_path, form_of())
    file = tmp_path / 'shard-00000-of-00001.bin'
    content = bytearray(file.read_bytes())
    content[2 * len(content) // 6 + 9] ^= 4
    file.write_bytes(bytes(content))
    (fault,) = verify_labels(tmp_path)
    assert "record 2 ('a/2.jpg')" in fault and file.name in fault
    store = LabelStore(tmp_path)
    store.read(1, [0])
    for read in (store.read, store.image_size, store.ground_truth, store.image):
        with pytest.raises(UserError, match=r"record 2 \('a/2.jpg'\) differs from its checksum.*vfd verify"):
            read(2)


def test_unfinished_store_is_refused(tmp_path):
    form = form_of()
    writer = LabelStoreWriter(tmp_path, form, {})
    writer.append(image_of(form, 0))
    writer.__exit__(RuntimeError, RuntimeError(), None)
    with pytest.raises(UnfinishedStoreError, match='goes on where it stopped'):
        LabelStore(tmp_path)


def test_other_inputs_are_refused(tmp_path):
    write(tmp_path, form_of())
    with pytest.raises(UserError, match=r"(?s)begun with other inputs.*teacher: was 'none', is 'other'"):
        LabelStoreWriter(tmp_path, form_of(), {'teacher': 'other'})
    with pytest.raises(UserError, match='label_type'):
        LabelStoreWriter(tmp_path, form_of('hard'), {'teacher': 'none'})


def test_a_store_of_something_else(tmp_path):
    with pytest.raises(MissingFileError, match='no store'):
        LabelStore(tmp_path)
    with StoreWriter(tmp_path, {'x': ('float32', ())}, {}):
        pass
    with pytest.raises(UserError, match='not of labels'):
        LabelStore(tmp_path)


def test_unknown_image_row_and_changed_file(tmp_path):
    form = form_of()
    content = b'content of the file'
    image = image_of(form, 0)
    with LabelStoreWriter(tmp_path, form, {}) as writer:
        writer.append(LabelledImage('x.jpg', image.size, image.crops, 1, (len(content), 0x1234)))
        writer.append(LabelledImage('y.jpg', image.size, image.crops))
    store = LabelStore(tmp_path)
    with pytest.raises(UserError, match=r'no labels of "z.jpg".*store of another data set'):
        store.index_of('z.jpg')
    with pytest.raises(UserError, match=r'record 0 \(x.jpg\) has crops 0 to 4'):
        store.read(0, [1, 5])
    with pytest.raises(IndexError, match='record 2'):
        store.read(2)
    with pytest.raises(UserError, match=r'x.jpg changed after it was labelled.*record 0'):
        store.check_file(0, content)
    store.check_file(1, content)  # not known
    assert store.ground_truth(1) == -1


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda image: image.crops.boxes.__setitem__((2, 3), 99), r'crop 2 .* leaves the 60 x 40 image'),
        (
            lambda image: image.crops.labels.__setitem__((1, 0, 2), 8),
            'crop 1: class 8, there are classes 0 to 6',
        ),
        (lambda image: image.crops.labels.__setitem__((1, 1, 0), 1.5), 'crop 1: probabilities'),
        (lambda image: image.crops.labels.__setitem__((4, 0), 3), 'crop 4 names a class twice'),
    ],
)
def test_verify_finds_what_cannot_be_true(tmp_path, change, message):
    form = form_of()
    image = image_of(form, 0)
    change(image)
    with LabelStoreWriter(tmp_path, form, {}) as writer:
        writer.append(image)
    (fault,) = verify_labels(tmp_path)
    assert fault.startswith(f"{tmp_path}: record 0 ('a/0.jpg'): ")
    assert re.search(message, fault)


def test_full_disk(tmp_path, small_blocks, monkeypatch):
    form = form_of()
    monkeypatch.setattr('vfd.stores.writer._sync', full_after(3))
    with pytest.raises(UserError, match=r'disk is full.*run the same command again'):
        write(tmp_path, form)
    monkeypatch.undo()
    monkeypatch.setattr(label_store, 'BLOCK_CROPS', 10)
    with pytest.raises(UnfinishedStoreError):
        LabelStore(tmp_path)
    write(tmp_path, form)
    assert verify_labels(tmp_path) == [] and len(LabelStore(tmp_path)) == 6


def full_after(calls: int):
    """A stand-in for the writer's flush: the disk is full from call ``calls`` on."""
    left = [calls]

    def sync(file):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, 'No space left on device')
        file.flush()

    return sync
