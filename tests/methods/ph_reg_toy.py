"""Small networks, photos and helpers for the tests of PH-Reg."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vfd.backbones import RegisterCLIP, RegisterViT
from vfd.registry import MODELS

PATCH, SIDE = 7, 42  # 6 x 6 patches
GRID = (6, 6)
VIT = dict(
    type='vfd.RegisterViT', model_name='vit_small_patch14_dinov2',
    img_size=SIDE, patch_size=PATCH, embed_dim=24, depth=3, num_heads=2, init_values=1.0,
)  # fmt: skip
CLIP = dict(
    type='vfd.RegisterCLIP', model_name='ViT-B-16-quickgelu', embed_dim=10,
    vision_cfg=dict(layers=3, width=24, head_width=12, patch_size=PATCH, image_size=28),
)  # fmt: skip
NETWORKS = {
    'vit': dict(student=dict(VIT, unlock_last_blocks=1), teacher=VIT),
    'clip': dict(
        student=dict(CLIP, img_size=SIDE, head='maskclip', unlock_last_blocks=2), teacher=dict(CLIP, head='naclip')
    ),
}  # fmt: skip
PREPROCESSOR = dict(
    type='mmpretrain.ClsDataPreprocessor',
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True,
)  # fmt: skip


def images(count: int = 2, height: int = SIDE, width: int = SIDE, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def teacher_config(network: dict = VIT, **options) -> dict:
    source = dict(type='vfd.DenseSource', network=network)
    return {
        'type': 'vfd.DenoisedTeacher', 'source': source, 'checkpoint': 'random', 'num_views': 4, 'shift_frac': 0.3,
        **options,
    }  # fmt: skip


def build(kind: str = 'vit', seed: int = 0, **options) -> Any:
    """A `vfd.PHReg`; ``teacher`` and ``student`` add to the toy's settings."""
    torch.manual_seed(seed)
    pair = NETWORKS[kind]
    settings = dict(
        student={**pair['student'], 'num_registers': 3, **options.pop('student', {})},
        teacher=teacher_config(pair['teacher'], **options.pop('teacher', {})),
        data_preprocessor=PREPROCESSOR,
    )
    return MODELS.build(copy.deepcopy({'type': 'vfd.PHReg', **settings, **options})).train()


def network(kind: str, seed: int = 0, **options) -> RegisterViT | RegisterCLIP:
    """One of the two backbones, its tensors all random."""
    torch.manual_seed(seed)
    built = MODELS.build(copy.deepcopy({**{'vit': VIT, 'clip': CLIP}[kind], **options})).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return built


def photos(folder: Path, count: int = 8) -> Path:
    """Smooth random photos of several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((60 + 5 * number, 90 - 4 * number), Image.Resampling.BICUBIC).save(
            folder / f'{number}.png'
        )
    return folder
