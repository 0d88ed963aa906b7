"""A training image from file to normalised tensor: vfd's data path against torchvision's plain one.

Both sides cut the same boxes out of the same JPEG files, resize them with Pillow (bicubic), flip the same ones, and
give a normalised float batch on the CPU: torchvision with ``ImageFolder``'s loader, ``ToTensor`` and ``Normalize``;
vfd with ``LoadImage``, mmpretrain's transforms and ``vfd.ClsDataPreprocessor``. The second row compares the
preprocessor alone with mmpretrain's. Timed in one process, without workers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torchvision.transforms as tv
from _common import Row, interleaved, parse_arguments, report
from mmengine.registry import DefaultScope
from mmpretrain.datasets import PackInputs, RandomResizedCrop
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.datasets.folder import default_loader

from vfd.datasets import LoadImage
from vfd.registry import MODELS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224


def write_images(folder: Path, count: int) -> list[str]:
    """JPEG files of 500 x 375 pixels, about as large as ImageNet's."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC).astype(float)
        pixels = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f'{i:03}.jpg'), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return sorted(str(path) for path in folder.glob('*.jpg'))


class Crop(RandomResizedCrop):
    """mmpretrain's transform at a given box."""

    box: tuple[int, int, int, int]

    def rand_crop_params(self, img: np.ndarray) -> tuple[int, int, int, int]:
        """The box as (top, left, height, width)."""
        return self.box


class PlainCrop(tv.RandomResizedCrop):
    """torchvision's transform at a given box."""

    box: tuple[int, int, int, int]

    def get_params(self, *_: Any) -> tuple[int, int, int, int]:  # type: ignore[override]
        """The box as (top, left, height, width)."""
        return self.box


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    cv2.setNumThreads(0)
    count, pairs = (8, 12) if arguments.quick else (32, 40)
    rng = np.random.default_rng(1)
    boxes = [
        (int(y), int(x), int(h), int(w))
        for y, x, h, w in zip(
            *(rng.integers(a, b, count) for a, b in ((0, 60), (0, 90), (150, 310), (150, 400))), strict=True
        )
    ]
    settings = {'mean': [255 * m for m in MEAN], 'std': [255 * s for s in STD], 'to_rgb': True}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        ours_norm, mm_norm = (
            MODELS.build({'type': f'{scope}.ClsDataPreprocessor', **settings})
            for scope in ('vfd', 'mmpretrain')
        )
    load, pack = LoadImage(), PackInputs()
    crop = Crop(SIZE, backend='pillow', interpolation='bicubic')
    plain_crop = PlainCrop(SIZE, interpolation=tv.InterpolationMode.BICUBIC)
    plain_rest = tv.Compose([tv.ToTensor(), tv.Normalize(MEAN, STD)])

    with tempfile.TemporaryDirectory() as folder:
        files = write_images(Path(folder), count)

        def read() -> Tensor:
            packed = []
            for index, (file, box) in enumerate(zip(files, boxes, strict=True)):
                crop.box = box
                results = crop(load({'img_path': file, 'gt_label': 0}))
                if index % 2:
                    results['img'] = np.ascontiguousarray(results['img'][:, ::-1])
                packed.append(pack(results)['inputs'])
            return default_collate(packed)

        def ours() -> Tensor:
            return ours_norm({'inputs': read()})['inputs']

        def plain() -> Tensor:
            images = []
            for index, (file, box) in enumerate(zip(files, boxes, strict=True)):
                plain_crop.box = box
                image = plain_crop(default_loader(file))
                images.append(plain_rest(tv.functional.hflip(image) if index % 2 else image))
            return default_collate(images)

        batch = read()
        difference = float((ours() - plain()).abs().max())
        alone = float(
            (ours_norm({'inputs': batch})['inputs'] - mm_norm({'inputs': batch})['inputs']).abs().max()
        )
        sides = interleaved([ours, plain], pairs)
        norms = interleaved(
            [lambda: ours_norm({'inputs': batch}), lambda: mm_norm({'inputs': batch})], 3 * pairs
        )
    setting = f'{count} JPEG files of 500 x 375, bicubic to {SIZE}, no workers'
    rows = [
        Row.of('file to normalised batch, against torchvision', *sides, 1.0, difference, setting),
        Row.of('preprocessor, against mmpretrain', *norms, 1.0, alone, f'{count} x 3 x {SIZE} x {SIZE}'),
    ]
    report(rows, arguments, 'The data path')


if __name__ == '__main__':
    main()
