"""Images with measured depth: a folder data set as NYUv2 is laid out, and its transforms.

Everything else that a depth pipeline needs is mmseg's: ``RandomRotate`` and ``RandomCrop`` (with ``seg_pad_val=0``, no
depth), ``RandomFlip``, ``PackSegInputs``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmengine.dataset import BaseDataset

from vfd.datasets.image_lists import list_images
from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.registry import DATASETS, TRANSFORMS

DEPTH_EXTENSIONS = ('.png', '.npy')


@DATASETS.register_module()
class DepthFolderDataset(BaseDataset):
    """Images below one folder, and below another one, under the same relative names, their depth maps.

    A depth map is ``.png`` (16 bit) or ``.npy``; see :class:`LoadDepth`.

    Args:
        data_root: folder in front of ``data_prefix``.
        data_prefix: ``img_path`` and ``depth_map_path``, folders.
        lazy_init: look into the folders at the first use.
        kwargs: the other settings of ``mmengine.dataset.BaseDataset``.

    Raises:
        MissingFileError: a folder does not exist.
        UserError: there is no image, or one without depth map.
    """

    def __init__(
        self, data_root: str = '', data_prefix: dict | None = None, lazy_init: bool = False, **kwargs: Any
    ) -> None:
        prefix = {'img_path': 'images', 'depth_map_path': 'depth', **(data_prefix or {})}
        super().__init__(ann_file='', data_root=data_root, data_prefix=prefix, lazy_init=True, **kwargs)
        if not lazy_init:
            self.full_init()

    def load_data_list(self) -> list[dict]:
        """Pair the files: ``{'img_path', 'depth_map_path', 'seg_fields'}`` an image."""
        images, depths = self.data_prefix['img_path'], self.data_prefix['depth_map_path']
        if not fileio.isdir(depths):
            raise MissingFileError(f'the folder of depth maps {depths} is not there')
        known = set(fileio.list_dir_or_file(depths, list_dir=False, recursive=True))
        data = []
        for name in list_images(images):
            stem = str(Path(name).with_suffix(''))
            found = next((stem + suffix for suffix in DEPTH_EXTENSIONS if stem + suffix in known), None)
            if found is None:
                raise UserError(
                    f'{fileio.join_path(images, name)} has no depth map: expected {stem}.png or {stem}.npy in {depths}'
                )
            # mmseg's transforms treat what `seg_fields` names as they treat the image.
            data.append(
                {
                    'img_path': fileio.join_path(images, name),
                    'depth_map_path': fileio.join_path(depths, found),
                    'seg_fields': [],
                }
            )
        return data


@TRANSFORMS.register_module()
class LoadDepth(BaseTransform):
    """Read ``depth_map_path`` into ``gt_depth_map``: (H, W) float32 in metres, 0 where there is no depth.

    Args:
        png_scale: metres a unit of a 16-bit PNG; NYUv2 stores millimetres. Floating ``.npy`` files hold metres.
    """

    def __init__(self, png_scale: float = 1e-3) -> None:
        if not png_scale > 0:
            raise UserError(f'LoadDepth png_scale={png_scale}: metres a unit, above 0')
        self.png_scale = png_scale

    def transform(self, results: dict) -> dict:
        """Fill in the depth map.

        Raises:
            BadDataError: the file cannot be read, is of another kind, has NaN, infinite or negative values, no depth
                at all, or another shape than the image.
        """
        path = results['depth_map_path']
        depth = self._read(path)
        if not np.isfinite(depth).all() or (depth < 0).any():
            raise BadDataError(f'{path}: depths that are NaN, infinite or negative; 0 means no depth')
        if not depth.any():
            raise BadDataError(f'{path}: no pixel has a depth')
        if 'ori_shape' in results and depth.shape != tuple(results['ori_shape']):
            raise BadDataError(f'{path}: depth map of {depth.shape}, image of {tuple(results["ori_shape"])}')
        results['gt_depth_map'] = depth
        results['seg_fields'] = [*results.get('seg_fields', ()), 'gt_depth_map']
        return results

    def _read(self, path: str) -> np.ndarray:
        if not Path(path).is_file():
            raise BadDataError(f'{path}: no such file')
        if path.endswith('.npy'):
            try:
                depth = np.load(path, allow_pickle=False)
            except (ValueError, EOFError, OSError) as error:
                raise BadDataError(f'{path}: cannot be read: {error}') from error
            wanted, fits = 'a floating array (H, W) in metres', depth.ndim == 2 and depth.dtype.kind == 'f'
        else:
            depth = cv2.imread(path, cv2.IMREAD_UNCHANGED)
            if depth is None:
                raise BadDataError(f'{path}: cannot be read as an image')
            wanted, fits = 'a 16-bit PNG with one channel', depth.ndim == 2 and depth.dtype == np.uint16
        if not fits:
            raise BadDataError(f'{path}: {depth.dtype} of shape {depth.shape}; expected {wanted}')
        return depth.astype(np.float32) * np.float32(1 if path.endswith('.npy') else self.png_scale)


@TRANSFORMS.register_module()
class RandomGammaBrightnessColour(BaseTransform):
    """The colour augmentation that depth estimators share since BTS: gamma, brightness, and a factor a channel.

    Args:
        prob: how often an image is changed.
        gamma: range of the exponent.
        brightness: range of the factor of all channels.
        colour: range of the factor of each channel.
    """

    def __init__(
        self,
        prob: float = 0.5,
        gamma: tuple[float, float] = (0.9, 1.1),
        brightness: tuple[float, float] = (0.75, 1.25),
        colour: tuple[float, float] = (0.9, 1.1),
    ) -> None:
        self.prob, self.gamma, self.brightness, self.colour = prob, gamma, brightness, colour

    @cache_randomness
    def draw(self) -> tuple[bool, float, np.ndarray]:
        """Draw whether to change the image, the exponent, and the factors of the three channels."""
        chosen = bool(np.random.rand() < self.prob)
        gamma = float(np.random.uniform(*self.gamma))
        return chosen, gamma, np.random.uniform(*self.brightness) * np.random.uniform(*self.colour, size=3)

    def transform(self, results: dict) -> dict:
        """Change ``img``, (H, W, 3) uint8, which keeps its type."""
        chosen, gamma, factors = self.draw()
        if chosen:
            levels = np.arange(256)[:, None] / 255  # all that a uint8 can be
            table = (255 * (levels**gamma * factors).clip(0, 1)).round().astype(np.uint8)  # (256, 3)
            results['img'] = table[results['img'], np.arange(3)]
        return results
