"""Data sets and transforms that the OpenMMLab packages lack."""

from vfd.datasets.image_io import IMAGE_EXTENSIONS, LoadImage, decode_image, read_image
from vfd.datasets.image_lists import ImageFolderDataset, ImageListDataset, list_images, read_image_list
from vfd.datasets.mining import TopKMiner, mine_topk
from vfd.datasets.paddle_crop import PaddleRandomCrop

__all__ = [
    'IMAGE_EXTENSIONS',
    'ImageFolderDataset',
    'ImageListDataset',
    'LoadImage',
    'PaddleRandomCrop',
    'TopKMiner',
    'decode_image',
    'list_images',
    'mine_topk',
    'read_image',
    'read_image_list',
]
