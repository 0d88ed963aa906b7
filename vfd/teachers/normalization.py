"""Pixel normalisation, and the step from one network's to another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from vfd.errors import UserError


@dataclass(frozen=True)
class Normalization:
    """Normalisation that a network was trained with: ``(pixel - mean) / std`` a channel, pixels in 0..255.

    Attributes:
        mean: three channel means, in the channel order that ``rgb`` names.
        std: three channel standard deviations.
        rgb: True when channel 0 is red, False when it is blue.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    rgb: bool = True

    @classmethod
    def from_unit(cls, mean: Sequence[float], std: Sequence[float]) -> Normalization:
        """Convert from the timm and open_clip convention: RGB pixels in 0..1."""
        return cls(_triple([255.0 * m for m in mean]), _triple([255.0 * s for s in std]))

    @classmethod
    def of_preprocessor(cls, preprocessor: nn.Module) -> Normalization | None:
        """Read how a data preprocessor normalises the loaders' BGR images.

        A preprocessor may declare it with an attribute ``normalization``: one of these, or None where what it makes
        is no normalised image. Otherwise those of images are understood: ``ImgDataPreprocessor`` and its children in
        mmdet, mmseg and mmpretrain, and ``ClsDataPreprocessor`` and others with ``to_rgb``. mmengine's plain
        ``BaseDataPreprocessor`` leaves the pixels as they are.

        Returns:
            None for any other preprocessor, such as one of point clouds: nothing is known about its images.
        """
        if hasattr(preprocessor, 'normalization'):
            return preprocessor.normalization  # type: ignore[return-value]
        names = ('to_rgb', '_channel_conversion', 'channel_conversion')  # mmpretrain, mmdet, mmseg
        known = [bool(getattr(preprocessor, name)) for name in names if hasattr(preprocessor, name)]
        if not known and type(preprocessor) is not BaseDataPreprocessor:
            return None
        rgb = bool(known and known[0])
        if not getattr(preprocessor, '_enable_normalize', False):
            return cls(rgb=rgb)
        mean, std = (getattr(preprocessor, name).flatten().tolist() for name in ('mean', 'std'))
        return cls(_triple(mean), _triple(std), rgb)

    @classmethod
    def of_image_preprocessor(cls, preprocessor: nn.Module) -> Normalization:
        """Read a preprocessor as :meth:`of_preprocessor` does, where there have to be images.

        Raises:
            UserError: nothing is known about its images.
        """
        known = cls.of_preprocessor(preprocessor)
        if known is None:
            kind = type(preprocessor).__name__
            raise UserError(
                f'how data_preprocessor={kind} normalises images is not known: give {kind} an attribute '
                'normalization=vfd.teachers.Normalization(mean, std, rgb) if it makes images'
            )
        return known

    def convert(self, images: Tensor, target: Normalization) -> Tensor:
        """Re-normalise images from this normalisation to ``target``.

        Args:
            images: (B, 3, H, W).
            target: the normalisation of the network that will see them.

        Returns:
            (B, 3, H, W); the same tensor when there is nothing to do.
        """
        if self == target:
            return images
        if self.rgb != target.rgb:
            images = images.flip(1)
        order = slice(None) if self.rgb == target.rgb else slice(None, None, -1)
        mean, std, mean_to, std_to = (
            torch.tensor(v, device=images.device, dtype=torch.float64)
            for v in (self.mean[order], self.std[order], target.mean, target.std)
        )
        scale = (std / std_to).to(images.dtype).view(3, 1, 1)
        shift = ((mean - mean_to) / std_to).to(images.dtype).view(3, 1, 1)
        return images * scale + shift


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    """Return three channels, also from a grey preprocessor's one value.

    Preprocessors keep float32; seven digits give back the decimal that was written, so that equal settings are equal.
    """
    values = [float(f'{value:.7g}') for value in values]
    first, second, third = values * 3 if len(values) == 1 else values
    return (first, second, third)
