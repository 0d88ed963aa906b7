"""Prepare the quickstart's images once, in the form that users have: folders of image files."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from quickstart.sources import RawData, Split, fetch
from vfd.errors import UserError
from vfd.stores import atomic_write

DESCRIPTION = 'dataset.json'


@dataclass(frozen=True)
class Recipe:
    """How many images are drawn from a data set.

    Attributes:
        unlabelled: training images without label.
        labelled_per_class: how many of them, in each class, come with their label as well.
        test: test images.
        seed: of the draw.
    """

    unlabelled: int = 6000
    labelled_per_class: int = 10
    test: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class ImageFolders:
    """A prepared data set.

    Attributes:
        root: the folder: ``unlabelled/*.png``, ``labelled/<class>/*.png``, ``test/<class>/*.png``.
        title: what the images really are.
        source: where they came from.
        licence: of the images.
        classes: sorted names; the label of an image is its folder's place among them.
        counts: number of images in ``unlabelled``, ``labelled`` and ``test``.
        size: height and width of an image.
        fingerprint: SHA-256 over the names and contents of all images.
    """

    root: Path
    title: str
    source: str
    licence: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    size: tuple[int, int]
    fingerprint: str

    def files(self, part: str) -> list[str]:
        """List the image files of a part, relative to ``root``, sorted."""
        return sorted(path.relative_to(self.root).as_posix() for path in (self.root / part).rglob('*.png'))

    def label(self, file: str) -> int:
        """Return the label of a file of ``labelled`` or ``test``."""
        return self.classes.index(Path(file).parent.name)


def prepare(
    name: str, root: str | Path, recipe: Recipe = Recipe(), log: Callable[[str], None] = print
) -> ImageFolders:
    """Load the data set ``name`` below ``root/<name>``, or make it from the first available source.

    The folder appears complete or not at all. A folder that is there is used when its images are what
    ``dataset.json`` says.

    Args:
        name: ``fashion-mnist`` or ``cifar10``.
        root: folder of the prepared data sets.
        recipe: how many images are drawn; only read when the folder is made.
        log: gets a line for every step.

    Raises:
        UserError: no source is available, or the images there were changed.
    """
    final = Path(root, name)
    if (final / DESCRIPTION).exists():
        return reopen(final)
    if final.exists():
        raise UserError(f'{final} has no {DESCRIPTION}, so it is not what this step makes: move it away.')
    log(f'looking for {name}')
    raw = fetch(name, log)
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{name}.', suffix='.tmp', dir=final.parent) as temporary:
        folder = Path(temporary, name)
        write_folders(raw, folder, recipe)
        folder.rename(final)
    return reopen(final)


def write_folders(raw: RawData, folder: Path, recipe: Recipe) -> None:
    """Draw images, write them and their description to ``folder``."""
    rng = np.random.default_rng(recipe.seed)
    drawn = rng.permutation(len(raw.train.labels))[: recipe.unlabelled]
    train = Split(raw.train.images[drawn], raw.train.labels[drawn])
    drawn = rng.permutation(len(raw.test.labels))[: recipe.test]
    test = Split(raw.test.images[drawn], raw.test.labels[drawn])
    seen: Counter[int] = Counter()
    for number, (image, label) in enumerate(zip(train.images, train.labels.tolist(), strict=True)):
        _save(image, folder / 'unlabelled' / f'{number:05d}.png')
        if seen[label] < recipe.labelled_per_class:
            _save(image, folder / 'labelled' / raw.classes[label] / f'{number:05d}.png')
            seen[label] += 1
    for number, (image, label) in enumerate(zip(test.images, test.labels.tolist(), strict=True)):
        _save(image, folder / 'test' / raw.classes[label] / f'{number:05d}.png')
    if min(seen[label] for label in range(len(raw.classes))) < recipe.labelled_per_class:
        raise UserError(
            f'{raw.title}: fewer than {recipe.labelled_per_class} images of a class were drawn: {dict(seen)}'
        )
    description = {
        'title': raw.title,
        'source': raw.source,
        'licence': raw.licence,
        'classes': sorted(raw.classes),
        'counts': {
            part: len(list((folder / part).rglob('*.png'))) for part in ('unlabelled', 'labelled', 'test')
        },
        'size': list(raw.train.images.shape[1:3]),
        'seed': recipe.seed,
        'fingerprint': fingerprint(folder),
    }
    atomic_write(folder / DESCRIPTION, json.dumps(description, indent=1) + '\n')


def reopen(folder: Path) -> ImageFolders:
    """Open a prepared data set, and check that its images are still the ones that were written."""
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        data = ImageFolders(
            folder, content['title'], content['source'], content['licence'], tuple(content['classes']),
            dict(content['counts']), (content['size'][0], content['size'][1]), content['fingerprint'],
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f'{path} is damaged ({error}): delete {folder} to make it anew.') from error
    if fingerprint(folder) != data.fingerprint:
        raise UserError(
            f'the images in {folder} are not the ones that {DESCRIPTION} describes (some were changed, added or '
            'removed): delete the folder to make it anew.'
        )
    return data


def fingerprint(folder: Path) -> str:
    """Compute SHA-256 over names and contents of all images below ``folder``."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob('*.png')):
        content = path.read_bytes()
        digest.update(f'{path.relative_to(folder).as_posix()} {len(content)}\n'.encode())
        digest.update(content)
    return digest.hexdigest()


def _save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
