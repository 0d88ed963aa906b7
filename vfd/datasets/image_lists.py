"""Image data sets given by text lists or by a folder, with or without labels."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import mmengine.fileio as fileio
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.utils import is_abs

from vfd.datasets.image_io import IMAGE_EXTENSIONS
from vfd.errors import MissingFileError, UserError
from vfd.registry import DATASETS

LABELLED = re.compile(r'(.*\S)[ \t]+([0-9]+)(?:[ \t]+([01]\.[0-9]+))?')  # path, class, score of a mined one


@DATASETS.register_module()
class ImageListDataset(BaseDataset):
    """Images named in one or more text files, each with its own root folder.

    A line is ``path label``, ``path`` or, in mined lists, ``path class score``. Images without label carry ``gt_label``
    0, which label-free methods never read, and ``has_label`` False. The class of a mined image is a teacher's
    prediction: it is the image's ``gt_label``, with ``has_label`` False, and its probability is ``score``. Blank lines
    and lines that begin with ``#`` are skipped.

    Example:
        >>> dict(
        ...     type='vfd.ImageListDataset',
        ...     ann_file=['lists/imagenet_train.txt', 'lists/mined.txt'],
        ...     data_prefix=['data/imagenet/train', 'data/pool'],
        ... )

    Args:
        ann_file: one list or several.
        data_root: folder in front of every relative ``ann_file`` and ``data_prefix``.
        data_prefix: root folder of the paths: one for all lists, or one a list.
        metainfo: ``classes``, for example; labels are then checked against their number.
        lazy_init: read the lists at the first use.
        kwargs: the other settings of ``mmengine.dataset.BaseDataset`` (``pipeline``, ``indices``, ...).

    Raises:
        MissingFileError: a list, or the first image of a list, does not exist.
        UserError: a list has a line that cannot be read, or no image at all.
    """

    def __init__(
        self,
        ann_file: str | Sequence[str],
        data_root: str = '',
        data_prefix: str | Sequence[str] = '',
        metainfo: dict | None = None,
        lazy_init: bool = False,
        **kwargs: Any,
    ) -> None:
        self.lists = [ann_file] if isinstance(ann_file, str) else list(ann_file)
        self.roots = [data_prefix] * len(self.lists) if isinstance(data_prefix, str) else list(data_prefix)
        if not self.lists or len(self.roots) != len(self.lists):
            raise UserError(
                f'ImageListDataset: {len(self.lists)} ann_file and {len(self.roots)} data_prefix; '
                'give one root for all lists, or one for each'
            )
        super().__init__(ann_file='', metainfo=metainfo, data_root=data_root, lazy_init=True, **kwargs)
        if not lazy_init:
            self.full_init()

    def load_data_list(self) -> list[dict]:
        """Read the lists: ``{'img_path', 'gt_label', 'has_label'}`` an image, and ``'score'`` of a mined one."""
        classes = self.metainfo.get('classes')
        data: list[dict] = []
        for file, root in zip(self.lists, self.roots, strict=True):
            file, root = (_join(self.data_root, part) for part in (file, root))
            rows = read_image_list(file, num_classes=len(classes) if classes else None)
            paths = [_join(root, row.path) for row in rows]
            if not fileio.exists(paths[0]):
                raise MissingFileError(
                    f'{paths[0]}, the first image of {file}, is not there. Its root is {root or "not set"}: '
                    'is data_prefix the folder to which the list is relative?'
                )
            for path, (_, label, score) in zip(paths, rows, strict=True):
                data.append(
                    {'img_path': path, 'gt_label': max(label, 0), 'has_label': label >= 0 and score is None}
                )
                if score is not None:
                    data[-1]['score'] = score
        return data


@DATASETS.register_module()
class ImageFolderDataset(BaseDataset):
    """All images below a folder, without labels, sorted by path.

    Files of other kinds are skipped and counted in the log. (For a folder a class, see
    ``mmpretrain.CustomDataset``.)

    Args:
        data_root: the folder.
        lazy_init: look into the folder at the first use.
        kwargs: the other settings of ``mmengine.dataset.BaseDataset``.

    Raises:
        MissingFileError: the folder does not exist.
        UserError: there is no image below it.
    """

    def __init__(self, data_root: str, lazy_init: bool = False, **kwargs: Any) -> None:
        super().__init__(ann_file='', data_root=data_root, lazy_init=True, **kwargs)
        if not lazy_init:
            self.full_init()

    def load_data_list(self) -> list[dict]:
        """Find the images: ``{'img_path'}`` each."""
        return [{'img_path': _join(self.data_root, name)} for name in list_images(self.data_root)]


def list_images(folder: str) -> list[str]:
    """List all images below ``folder``, relative to it, sorted; the number of other files is logged.

    Raises:
        MissingFileError: the folder does not exist.
        UserError: there is no image below it.
    """
    if not fileio.isdir(folder):
        raise MissingFileError(f'the image folder {folder} is not there')
    names = sorted(fileio.list_dir_or_file(folder, list_dir=False, recursive=True))
    images = [name for name in names if name.lower().endswith(IMAGE_EXTENSIONS)]
    if not images:
        raise UserError(
            f'{folder} has no image: {len(names)} files, none of them ends with {", ".join(IMAGE_EXTENSIONS)}'
        )
    if len(images) < len(names):
        first = next(name for name in names if not name.lower().endswith(IMAGE_EXTENSIONS))
        print_log(
            f'{folder}: {len(images)} images; {len(names) - len(images)} other files skipped, first {first}',
            logger='current',
            level=logging.WARNING,
        )
    return images


class ListedImage(NamedTuple):
    """A line of an image list.

    Attributes:
        path: as written.
        label: class, -1 where there is none.
        score: probability of the class where it is a teacher's prediction, as in mined lists; None for a label.
    """

    path: str
    label: int = -1
    score: float | None = None


def read_image_list(file: str, num_classes: int | None = None) -> list[ListedImage]:
    """Read a text list of images.

    Args:
        file: lines ``path label``, ``path class score`` or ``path``, UTF-8; blank lines and lines that begin with
            ``#`` are skipped. A path may have spaces; a path without label must end like an image file, so that a
            mistyped label is noticed. A score is written with a decimal point.
        num_classes: labels must be smaller.

    Returns:
        One entry a line.

    Raises:
        MissingFileError: the list does not exist.
        UserError: a line cannot be read (named by its number), or the list has no image.
    """
    if not fileio.isfile(file):
        raise MissingFileError(f'the image list {file} is not there')
    rows = []
    for number, line in enumerate(fileio.list_from_file(file, encoding='utf-8-sig'), 1):
        line = line.strip()
        if not line or line.startswith('#'):
            continue
        if (labelled := LABELLED.fullmatch(line)) is not None:
            path, label, score = labelled.groups()
            if num_classes is not None and int(label) >= num_classes:
                raise UserError(f'{file}:{number}: there are only {num_classes} classes: "{line}"')
            rows.append(ListedImage(path, int(label), float(score) if score else None))
        elif PurePosixPath(line.split()[-1]).suffix.lower() in IMAGE_EXTENSIONS:
            rows.append(ListedImage(line))
        else:
            raise UserError(
                f'{file}:{number}: expected "path label", "path class score" or the path of an image, found "{line}"'
            )
    if not rows:
        raise UserError(f'{file} names no image')
    return rows


def _join(root: str, name: str) -> str:
    return fileio.join_path(root, name) if root and not is_abs(name) else name
