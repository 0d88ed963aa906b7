"""What the two-process tests of methods share: the engine's process groups, and images in memory."""

from __future__ import annotations

import torch
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset


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
