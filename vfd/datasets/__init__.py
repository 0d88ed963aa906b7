"""Data sets and transforms that the OpenMMLab packages lack."""

from importlib import import_module
from typing import Any

from vfd.datasets.depth import DepthFolderDataset, LoadDepth, RandomGammaBrightnessColour
from vfd.datasets.drop_labels import DropLabels
from vfd.datasets.image_io import IMAGE_EXTENSIONS, LoadImage, decode_image, read_image
from vfd.datasets.image_lists import ImageFolderDataset, ImageListDataset, list_images, read_image_list
from vfd.datasets.mining import TopKMiner, mine_topk
from vfd.datasets.paddle_crop import PaddleRandomCrop

__all__ = [
    'IMAGE_EXTENSIONS',
    'DepthFolderDataset',
    'DropLabels',
    'ImageFolderDataset',
    'ImageListDataset',
    'LoadDepth',
    'LoadImage',
    'PaddleRandomCrop',
    'RandomGammaBrightnessColour',
    'TopKMiner',
    'decode_image',
    'list_images',
    'mine_topk',
    'read_image',
    'read_image_list',
]

_ON_DEMAND = {  # of an optional package, which they import
    'COCOObjectDataset': 'coco_object',
    'ClsDataPreprocessor': 'preprocessors',
    'SelfSupDataPreprocessor': 'preprocessors',
}


def __getattr__(name: str) -> Any:
    """Import what needs an optional package when it is used."""
    if name in _ON_DEMAND:
        return getattr(import_module(f'{__name__}.{_ON_DEMAND[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
