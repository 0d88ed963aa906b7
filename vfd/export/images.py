"""Real images, prepared exactly as the student's own test pipeline does."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor

from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.export.student import DATA_LOADERS, LoadedStudent
from vfd.registry import DATASETS, TRANSFORMS

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm'}


def real_images(
    config: Config,
    student: LoadedStudent,
    images: str | Path | Iterable[str | Path] | None = None,
    limit: int | None = None,
) -> tuple[Tensor, list[str]]:
    """A batch of real images as the student sees them.

    Args:
        config: its test (else validation, else training) data set gives the pipeline, and the images where
            none are named.
        student: its data preprocessor normalises; a backbone of one image size gets images of that size.
        images: a folder, a file or files; default: the first images of the data set.
        limit: how many are taken; default 8, of a detector 4.

    Returns:
        Images (B, 3, H, W), normalised, and their B names.

    Raises:
        UserError: no pipeline, no data set, or no readable image.
    """
    limit = limit or (4 if student.is_detector else 8)  # masks are large
    with DefaultScope.overwrite_default_scope(student.scope):
        samples = _from_dataset(config) if images is None else _from_files(student, _files(images))
        chosen: list[dict[str, Any]] = []
        names: list[str] = []
        for name, sample in samples:
            chosen.append(sample)
            names.append(name)
            if len(chosen) == limit:
                break
    if not chosen:
        raise UserError(
            'the data set of the config holds no readable image to compare on; name some with --images'
        )
    assert student.preprocessor is not None, 'images come with a preprocessor'
    with torch.no_grad():
        prepared = [
            student.preprocessor(_batch_of_one(sample, student), False)['inputs'][0].float()
            for sample in chosen
        ]
    return _of_one_size(prepared, student.image_size), names


def _batch_of_one(sample: dict[str, Any], student: LoadedStudent) -> dict[str, Any]:
    """As a loader gives it to the data preprocessor; that for pre-training takes a list for one of views."""
    batch: Any = pseudo_collate([sample])
    if type(student.preprocessor).__name__ == 'SelfSupDataPreprocessor':
        batch['inputs'] = torch.stack(batch['inputs'])
    return batch


def _of_one_size(images: list[Tensor], size: tuple[int, int] | None) -> Tensor:
    """A batch (B, 3, H, W): images are cut, or padded with zeros as detectors do, at the right and the bottom.

    Args:
        images: each (3, h, w), normalised.
        size: (H, W); None takes the largest sides.
    """
    height, width = size or (max(image.shape[1] for image in images), max(image.shape[2] for image in images))
    batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for place, image in zip(batch, images, strict=True):
        part = image[:, :height, :width]
        place[:, : part.shape[1], : part.shape[2]] = part
    return batch


def _from_dataset(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    loader = next((name for name in DATA_LOADERS if (config.get(name) or {}).get('dataset')), None)
    if loader is None:
        raise UserError('the config has no data set to take images from; name some with --images')
    try:
        dataset = DATASETS.build(copy.deepcopy(config[loader].dataset))
        count = len(dataset)
    except (OSError, ValueError) as error:
        raise UserError(
            f'the data set of {loader} cannot be read ({error}); name images with --images'
        ) from error
    for index in range(min(count, 256)):
        try:
            sample = dataset[index]
        except BadDataError:
            continue
        path = getattr(sample.get('data_samples'), 'img_path', None)
        yield (Path(path).name if path else f'{loader}[{index}]'), sample


def _from_files(student: LoadedStudent, files: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    transforms = copy.deepcopy(student.pipeline)
    if not transforms:
        raise UserError(
            'the config has no data set, so it is not known how its images are resized and cropped'
        )
    labels = ('Annotations', 'LoadDepth')  # images alone are given
    transforms = [t for t in transforms if not any(name in str(t['type']) for name in labels)]
    if not any('Load' in str(transform['type']) for transform in transforms):  # data sets of arrays load none
        transforms.insert(0, {'type': 'LoadImageFromFile'})
    pipeline = Compose([TRANSFORMS.build(transform) for transform in transforms])
    for file in files:
        try:
            yield file.name, pipeline({'img_path': str(file)})
        except (AssertionError, OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f'{file} cannot be read as an image: {error}') from error


def _files(images: str | Path | Iterable[str | Path]) -> list[Path]:
    given = [Path(images)] if isinstance(images, (str, Path)) else [Path(image) for image in images]
    files: list[Path] = []
    for path in given:
        if path.is_dir():
            files += sorted(file for file in path.rglob('*') if file.suffix.lower() in SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise MissingFileError(f'no image or folder at {path}')
    if not files:
        raise UserError(
            f'no images in {", ".join(map(str, given))}; looked for {", ".join(sorted(SUFFIXES))}'
        )
    return files
