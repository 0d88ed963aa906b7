"""Training data from a label store: several stored crops of an image, decoded once, with their labels.

    train_dataloader = dict(
        batch_size=32,  # images; num_crops times as many samples
        collate_fn=dict(type='vfd.crop_major_collate'),
        dataset=dict(
            type='vfd.StoredCropDataset',
            store='work_dirs/labels',
            data_root='data/imagenet/train',
            num_crops=4))

Crops are cut as FKD's released loader cuts them (arXiv 2112.01528): Pillow, no rotation by EXIF, bilinear, the stored
flip, and no other augmentation. Workers ship bytes; the data preprocessor normalises on the device.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mmengine.fileio as fileio
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vfd.errors import BadDataError, MissingFileError, UserError
from vfd.registry import DATASETS, FUNCTIONS
from vfd.stores import LabelStore

from .calibration import LiveCalibration, build_calibration
from .core import calibrated_type
from .crops import cut_crop, read_rgb

if TYPE_CHECKING:
    from mmpretrain.structures import DataSample

_LOOKED_FOR = 50  # images, spread over the store, of which one has to be there


@DATASETS.register_module()
class StoredCropDataset(Dataset):
    """``num_crops`` random stored crops of an image, with the teacher's labels.

    An item is ``{'inputs': (num_crops, 3, S, S) uint8 BGR, 'data_samples': DataSample}``. The sample has ``img_path``,
    ``ground_truth`` (-1: not known), ``num_classes``, ``label_type`` and, as an array, ``stored_label`` (num_crops,
    *label_shape).

    Args:
        store: folder of a label store, raw or calibrated.
        data_root: folder that the store's file names are relative to.
        num_crops: crops of an image; they are drawn anew, without repetition, every time the image is visited.
        crop_size: side S in pixels.
        calibration: FerKD's region calibration of a raw store while it is read: ``dict(thresholds=(low, mid, high))``
            or ``dict(quantiles=...)``, and further settings of
            :func:`vfd.methods.ferkd.calibration.build_calibration`. The numbers are those of a store that was
            calibrated with the same settings. None takes the store as it is.
        metainfo: ``dict(classes=[...])``, the names of the classes.

    Raises:
        MissingFileError: there is no store, or its images are not in ``data_root``.
        UserError: more crops are requested than are stored, or settings of the calibration are wrong.
    """

    def __init__(
        self,
        store: str | Path,
        data_root: str,
        num_crops: int = 4,
        crop_size: int = 224,
        calibration: dict[str, Any] | None = None,
        metainfo: dict[str, Any] | None = None,
    ) -> None:
        self.store = LabelStore(store)
        self.data_root = data_root
        self.num_crops = num_crops
        self.crop_size = crop_size
        self.metainfo = dict(metainfo or {})
        if crop_size < 1:
            raise UserError(f'StoredCropDataset: crop_size={crop_size} must be at least 1 pixel')
        if not 1 <= num_crops <= self.store.crops:
            raise UserError(
                f'StoredCropDataset: num_crops={num_crops}, but {store} has {self.store.crops} crops an image'
            )
        names = self.metainfo.get('classes')
        if names and len(names) != self.store.classes:
            raise UserError(
                f'{store} has labels of {self.store.classes} classes, metainfo names {len(names)}'
            )
        self.crops: LabelStore | LiveCalibration = self.store
        self.label_type = self.store.label_type
        if calibration is not None:
            settings = {'min_keep': num_crops, **calibration}
            try:
                self.crops = LiveCalibration(self.store, build_calibration(self.store, **settings))
            except TypeError as error:
                raise UserError(f'StoredCropDataset: calibration={calibration}: {error}') from None
            self.label_type = calibrated_type(self.label_type)
        self._check_images()

    def __len__(self) -> int:
        return len(self.store)

    def get_data_info(self, index: int) -> dict[str, str]:
        """Return the ``img_path`` of an image."""
        return {'img_path': fileio.join_path(self.data_root, self.store.names[index])}

    def with_crops(self, num_crops: int) -> StoredCropDataset:
        """Return the same data set with another number of crops."""
        other = copy.copy(self)
        other.num_crops = num_crops
        return other

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return crops of image ``index``; torch's global generator decides which ones.

        Raises:
            BadDataError: the image is absent or cannot be decoded.
            UserError: it is not the image that was labelled, or calibration kept too few of its crops.
        """
        from mmpretrain.structures import DataSample

        path = self.get_data_info(index)['img_path']
        image = self._image(index, path)
        kept = self.crops.kept(index)
        if len(kept) < self.num_crops:
            raise UserError(
                f'{self.store.folder}: {self.store.names[index]} (record {index}) has {len(kept)} crops after '
                f'calibration, num_crops is {self.num_crops}: calibrate with min_keep={self.num_crops} or more'
            )
        rows = kept[torch.randperm(len(kept))[: self.num_crops].numpy()]
        stored = self.crops.read(index, rows)
        crops = [
            cut_crop(image, box, bool(flip), self.crop_size, 'bilinear')
            for box, flip in zip(stored.boxes, stored.flip, strict=True)
        ]
        pixels = np.stack(crops)[..., ::-1].transpose(0, 3, 1, 2)  # BGR, as data sets of OpenMMLab give it
        sample = DataSample(
            metainfo={
                'img_path': path,
                'ground_truth': self.store.ground_truth(index),
                'num_classes': self.store.classes,
                'label_type': self.label_type,
            }
        )
        sample.set_field(stored.labels, 'stored_label', dtype=np.ndarray)
        return {'inputs': torch.from_numpy(np.ascontiguousarray(pixels)), 'data_samples': sample}

    def _image(self, index: int, path: str) -> Image.Image:
        try:
            data = fileio.get(path)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise BadDataError(f'{path}: no such file') from error
        self.store.check_file(index, data)
        image = read_rgb(data, path)
        height, width = self.store.image_size(index)
        if image.size != (width, height):
            raise UserError(
                f'{path}: {image.width} x {image.height} pixels; {self.store.folder} (record {index}) was made of an '
                f'image of {width} x {height}. Restore the file, or label the images anew.'
            )
        return image

    def _check_images(self) -> None:
        """Check that this is the data set that was labelled; single images may be gone."""
        if not len(self.store):
            return  # the loader reports that the data set is empty
        some = np.unique(np.linspace(0, len(self) - 1, _LOOKED_FOR).astype(int))
        if not any(fileio.exists(self.get_data_info(int(index))['img_path']) for index in some):
            raise MissingFileError(
                f'none of the images of {self.store.folder} that were looked for is in {self.data_root}, such as '
                f'{self.store.names[0]}: is data_root right, and is this the store of that data set?'
            )


@FUNCTIONS.register_module()
def crop_major_collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate B images with K crops each, as FKD's released loader orders them: row ``c * B + b``.

    Args:
        samples: items of :class:`StoredCropDataset`.

    Returns:
        ``inputs`` (K * B, 3, S, S) uint8 and ``data_samples``, B of them: one an image.
    """
    pixels = torch.stack([sample['inputs'] for sample in samples], dim=1)  # (K, B, 3, S, S)
    return {
        'inputs': pixels.flatten(0, 1),
        'data_samples': [sample['data_samples'] for sample in samples],
    }


def crop_major_labels(samples: Sequence[DataSample]) -> Tensor:
    """Return the stored labels of a batch (K * B, *label_shape), in the order of :func:`crop_major_collate`."""
    stored = np.stack([sample.stored_label for sample in samples], axis=1)
    return torch.from_numpy(stored).flatten(0, 1)
