"""Student networks on timm's: masked transformers, and backbones for detection and segmentation."""

from importlib import import_module
from typing import Any

from vfd.backbones.beit_pyramid import BEiTPyramid
from vfd.backbones.cifar_resnet import CifarResNet
from vfd.backbones.dist_token_vit import DistTokenViT
from vfd.backbones.masked_autoencoder import MaskedAutoencoder
from vfd.backbones.masked_pixels import check_masked_student, predict_images, random_mask
from vfd.backbones.masked_vit import MaskedViT
from vfd.backbones.masking import PatchMask, check_mask_ratio, keep_count, make_mask
from vfd.backbones.nas_bench_201 import NASBench201Network
from vfd.backbones.plainnet import PlainNet
from vfd.backbones.register_clip import RegisterCLIP
from vfd.backbones.register_vit import RegisterViT
from vfd.backbones.registers import RegisterBackbone
from vfd.backbones.simple_pyramid import SimpleFeaturePyramid
from vfd.backbones.sincos import sincos_position_table
from vfd.backbones.vitdet import ViTDet

__all__ = [
    'BEiTPyramid',
    'CifarResNet',
    'DistTokenViT',
    'MaskedAutoencoder',
    'MaskedViT',
    'NASBench201Network',
    'PatchMask',
    'PlainNet',
    'RegisterBackbone',
    'RegisterCLIP',
    'RegisterViT',
    'SimpleFeaturePyramid',
    'ViTClassifier',
    'ViTDet',
    'check_mask_ratio',
    'check_masked_student',
    'keep_count',
    'make_mask',
    'predict_images',
    'random_mask',
    'sincos_position_table',
]

_ON_DEMAND = {'ViTClassifier': 'vit_classifier'}  # of an optional package, which they import


def __getattr__(name: str) -> Any:
    """Import what needs an optional package when it is used."""
    if name in _ON_DEMAND:
        return getattr(import_module(f'{__name__}.{_ON_DEMAND[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
