"""Small folders of images and label stores of them, for the tests of training from stored labels."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vfd.losses import label_shape
from vfd.methods.ferkd.core import compress
from vfd.methods.ferkd.crops import draw_crops, seeded
from vfd.stores import LabelForm, LabelledImage, LabelStoreWriter, StoredCrops

CLASSES = 10


def make_images(folder: Path, count: int = 6, seed: int = 0) -> list[str]:
    """Images of different sizes, a folder a class: their names."""
    rng = np.random.default_rng(seed)
    names = []
    for number in range(count):
        name = f'class{number % CLASSES}/{number}.png'
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (40 + 3 * number, 50 - 2 * number, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)
        names.append(name)
    return names


def make_store(
    store: Path,
    images: Path,
    names: list[str],
    crops: int = 8,
    label_type: str = 'marginal_smoothing_k5',
    values: str = 'float32',
    probs: torch.Tensor | None = None,
) -> Path:
    """A store of random labels, or of ``probs`` (images, crops, C)."""
    generator = torch.Generator().manual_seed(1)
    form = LabelForm(label_type, label_shape(label_type, CLASSES), CLASSES, crops, values)
    with LabelStoreWriter(store, form, {'made': 'for a test'}) as writer:
        for number, name in enumerate(names):
            with Image.open(images / name) as image:
                size = image.height, image.width
            with seeded(0, name):
                boxes, flips = draw_crops(size, crops, (0.08, 1.0))
            logits = torch.randn(crops, CLASSES, generator=generator) * 2
            label = compress(logits.softmax(-1) if probs is None else probs[number], label_type).numpy()
            data = (images / name).read_bytes()
            writer.append(
                LabelledImage(
                    name,
                    size,
                    StoredCrops(boxes, flips, label),
                    number % CLASSES,
                    (len(data), zlib.crc32(data)),
                )
            )
    return store
