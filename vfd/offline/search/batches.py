"""The images that untrained networks see."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor

from vfd.engine.seeding import seeded
from vfd.errors import BadDataError, UserError
from vfd.registry import DATASETS, MODELS

Batch = tuple[Tensor, Tensor]  # images (B, 3, H, W), labels (B,)


def noise_batches(count: int, batch_size: int, input_size: int, num_classes: int, seed: int) -> list[Batch]:
    """Draw standard normal images with labels drawn evenly."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(batch_size, 3, input_size, input_size, generator=generator),
            torch.randint(num_classes, (batch_size,), generator=generator),
        )
        for _ in range(count)
    ]


def training_batches(cfg: Config, count: int, batch_size: int, seed: int) -> tuple[list[Batch], int]:
    """Load batches of ``train_dataloader``'s data set, as the model of the config would see them.

    Args:
        cfg: the config; its default scope is set.
        count: batches; they share no image unless the data set is too small.
        batch_size: images a batch.
        seed: decides which images, and how they are augmented.

    Returns:
        The batches (label -1: the image has none) and the number of files that could not be read.
    """
    loader = cfg.get('train_dataloader')
    if loader is None:
        raise UserError(
            "search.images='train' needs a train_dataloader; without one take search.images='noise'"
        )
    settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    preprocessor = MODELS.build({'type': 'mmpretrain.ClsDataPreprocessor', **settings})
    bad = 0
    with seeded(seed):
        dataset: Any = DATASETS.build(loader['dataset'])
        order = list(range(len(dataset)))
        random.shuffle(order)
        if len(order) < 2:
            raise UserError('the training data set has fewer than two images: nothing can be compared')
        batches = []
        for number in range(count):
            first = number * batch_size
            wanted = [order[(first + i) % len(order)] for i in range(min(batch_size, len(order)))]
            samples = []
            for index in wanted:
                try:
                    samples.append(dataset[index])
                except BadDataError:
                    bad += 1
            if len(samples) < 2:
                raise UserError('hardly an image of the training data set can be read')
            batches.append(_prepared(samples, preprocessor))
    return batches, bad


def _prepared(samples: list[dict], preprocessor: Any) -> Batch:
    data = preprocessor(pseudo_collate(samples), training=False)
    inputs = data['inputs']
    if isinstance(inputs, list):
        raise UserError('the images of a batch differ in size; let the training pipeline crop or resize them')
    labels = [int(s.gt_label[0]) if 'gt_label' in s else -1 for s in data['data_samples']]
    return inputs.float(), torch.tensor(labels)


def digest(batches: list[Batch]) -> str:
    """Return a digest that differs for different batches."""
    sha = hashlib.sha256()
    for images, labels in batches:
        sha.update(images.contiguous().numpy().tobytes())
        sha.update(labels.numpy().tobytes())
    return sha.hexdigest()
