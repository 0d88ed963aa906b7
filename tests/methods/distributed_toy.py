"""What the two-process tests of methods share: the engine's process groups, and images in memory."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset


def engine_toy():
    """The module of the engine's tests that starts processes which form a group."""
    if 'engine_toy' not in sys.modules:
        path = Path(__file__).parents[1] / 'engine' / 'engine_toy.py'
        spec = importlib.util.spec_from_file_location('engine_toy', path)
        sys.modules['engine_toy'] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules['engine_toy'])
    return sys.modules['engine_toy']


class Photos(Dataset):
    """Images (N, 3, H, W) in memory, 0..255."""

    metainfo: dict = {}  # noqa: RUF012

    def __init__(self, images: torch.Tensor) -> None:
        self.images = 127 + 50 * images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        sample = BaseDataElement(metainfo={'img_path': f'{index}.png'})
        return {'inputs': self.images[index], 'data_samples': sample}
