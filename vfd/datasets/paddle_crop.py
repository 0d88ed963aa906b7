"""The random crop of the SSLD recipes, which is not torchvision's RandomResizedCrop."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from vfd.errors import UserError
from vfd.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PaddleRandomCrop(BaseTransform):
    """Cut a random part of the image and resize it.

    The aspect ratio ``a`` (width / height) is drawn uniformly, not log-uniformly; the range of the area is
    first clipped to what fits at that ratio, ``min((W/H)/a, (H/W)*a)`` of the image. So every draw fits:
    there are no attempts and no central fallback. Then ``area = W*H*U(scale)``, ``w = int(sqrt(area*a))``,
    ``h = int(sqrt(area/a))``, and the position is uniform. At least one pixel is cut [ours].

    Required and modified keys: ``img`` (H, W, C), ``img_shape``.

    Args:
        crop_size: side of the result in pixels, or (height, width).
        scale: range of the part of the image's area.
        ratio: range of the aspect ratio.
        interpolation: of the resize: ``nearest``, ``bilinear``, ``bicubic``, ``area`` or ``lanczos``.
        backend: who resizes: ``cv2`` or ``pillow``.
    """

    def __init__(
        self,
        crop_size: int | Sequence[int] = 224,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = 'bilinear',
        backend: str = 'cv2',
    ) -> None:
        self.crop_size = (crop_size, crop_size) if isinstance(crop_size, int) else tuple(crop_size)
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)
        self.interpolation = interpolation
        self.backend = backend
        if len(self.crop_size) != 2 or min(self.crop_size) < 1:
            raise UserError(f'PaddleRandomCrop: crop_size {crop_size}: give pixels or (height, width)')
        for name, (low, high) in (('scale', self.scale), ('ratio', self.ratio)):
            if not 0 < low <= high:
                raise UserError(f'PaddleRandomCrop: {name} {(low, high)}: expected 0 < smallest <= largest')

    @cache_randomness
    def random_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw a box for an image of this size: (top, left, box height, box width), in pixels."""
        aspect = np.random.uniform(self.ratio[0], self.ratio[1])
        bound = min(width / height / aspect, height / width * aspect)
        area = width * height * np.random.uniform(min(self.scale[0], bound), min(self.scale[1], bound))
        box_width = max(1, int(math.sqrt(area * aspect)))
        box_height = max(1, int(math.sqrt(area / aspect)))
        left = np.random.randint(0, width - box_width + 1)
        top = np.random.randint(0, height - box_height + 1)
        return int(top), int(left), box_height, box_width

    def transform(self, results: dict) -> dict:
        """Crop and resize ``img``; ``img_shape`` becomes ``crop_size``."""
        image = results['img']
        top, left, height, width = self.random_box(*image.shape[:2])
        results['img'] = mmcv.imresize(
            image[top : top + height, left : left + width],
            self.crop_size[::-1],
            interpolation=self.interpolation,
            backend=self.backend,
        )
        results['img_shape'] = self.crop_size
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(crop_size={self.crop_size}, scale={self.scale}, ratio={self.ratio}, '
            f'interpolation={self.interpolation!r}, backend={self.backend!r})'
        )
