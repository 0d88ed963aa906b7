"""Data sets and transforms that the OpenMMLab packages lack."""

from importlib.util import find_spec

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

if find_spec('mmseg') is not None:  # an optional package; configs for it name it as their scope
    from vfd.datasets.coco_object import COCOObjectDataset

    __all__ += ['COCOObjectDataset']
