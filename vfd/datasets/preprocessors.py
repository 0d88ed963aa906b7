"""mmpretrain's data preprocessors, normalising an image in one pass on the CPU.

mmpretrain turns the channels of a batch around, converts it to float, subtracts and divides: four passes over memory,
three of them over new float tensors. Here each value of a byte image is looked up in a table of its 256 normalised
values, and written where the turned channel belongs. The numbers are the same to the last bit, since the table is made
by the same operations. On a GPU, and for float images, mmpretrain's own way is taken.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from mmpretrain.models.utils import data_preprocessor as mmpretrain
from torch import Tensor

from vfd.registry import MODELS


def normalize_bytes(images: Tensor, mean: Tensor, std: Tensor, flip_channels: bool) -> Tensor:
    """Normalise byte images in one pass.

    Args:
        images: (B, C, H, W) or (C, H, W) uint8 on the CPU, contiguous.
        mean: (C, 1, 1), in 0..255, in the order of the channels after flipping.
        std: (C, 1, 1).
        flip_channels: turn the order of the channels around first.

    Returns:
        ``(images - mean) / std`` as float32, of the same shape.
    """
    values = torch.arange(256, dtype=torch.uint8).float()
    tables = ((values - mean.flatten()[:, None]) / std.flatten()[:, None]).numpy()  # (C, 256)
    source = images.numpy()
    normalized = np.empty(source.shape, np.float32)
    channels = source.shape[-3]
    for index in np.ndindex(source.shape[:-3]):
        for c, table in enumerate(tables):
            taken = channels - 1 - c if flip_channels else c
            cv2.LUT(source[(*index, taken)], table, normalized[(*index, c)])
    return torch.from_numpy(normalized)


class _OnePass:
    """Normalises before the base class, which then finds float images and nothing to normalise."""

    mean: Tensor
    std: Tensor
    _flips = ''  # name of the attribute for turning channels around
    _enable_normalize: bool

    def forward(self, data: dict, training: bool = False) -> Any:
        """Process one batch as the base class does."""
        inputs = data['inputs']
        if not self._enable_normalize or not self._fits(inputs):
            return super().forward(data, training)  # type: ignore[misc]
        flips = getattr(self, self._flips)
        if isinstance(inputs, Tensor):
            inputs = normalize_bytes(inputs, self.mean, self.std, flips)
        else:
            inputs = [normalize_bytes(image, self.mean, self.std, flips) for image in inputs]
        self._enable_normalize = False
        setattr(self, self._flips, False)
        try:
            return super().forward({**data, 'inputs': inputs}, training)  # type: ignore[misc]
        finally:
            self._enable_normalize = True
            setattr(self, self._flips, flips)

    def _fits(self, inputs: Any) -> bool:
        """Return whether every image is of bytes, on the CPU, with as many channels as there are means."""
        images = [inputs] if isinstance(inputs, Tensor) else inputs
        return (
            self.mean.device.type == 'cpu'
            and isinstance(images, (list, tuple))
            and all(
                isinstance(image, Tensor)
                and image.dtype == torch.uint8
                and image.device.type == 'cpu'
                and image.dim() >= 3
                and image.is_contiguous()
                and image.shape[-3] == 3 == len(self.mean) == len(self.std)
                for image in images
            )
        )


@MODELS.register_module()
class ClsDataPreprocessor(_OnePass, mmpretrain.ClsDataPreprocessor):
    """mmpretrain's ``ClsDataPreprocessor``, arguments as there, in one pass on the CPU."""

    _flips = 'to_rgb'


@MODELS.register_module()
class SelfSupDataPreprocessor(_OnePass, mmpretrain.SelfSupDataPreprocessor):
    """mmpretrain's ``SelfSupDataPreprocessor``, arguments as there, in one pass on the CPU."""

    _flips = '_channel_conversion'
