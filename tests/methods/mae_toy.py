"""Small networks, images and helpers for the tests of the masked autoencoders' methods."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmengine.optim import OptimWrapper

from vfd.backbones import make_mask
from vfd.registry import MODELS

SIZE, PATCH = 32, 8
PATCHES, KEPT = 16, 4
SHAPE = dict(img_size=SIZE, patch_size=PATCH, num_heads=2)
STUDENT = dict(
    type='vfd.MaskedAutoencoder', embed_dim=24, depth=3, decoder_embed_dim=16, decoder_depth=2,
    decoder_num_heads=2, **SHAPE,
)  # fmt: skip
TEACHER_NETWORK = dict(
    embed_dim=32, depth=4, decoder_embed_dim=16, decoder_depth=2, decoder_num_heads=2, **SHAPE
)
TEACHER = dict(type='vfd.Teacher', source=dict(type='vfd.MAESource', **TEACHER_NETWORK), checkpoint='random')
PREPROCESSOR = dict(
    type='mmpretrain.ClsDataPreprocessor',
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True,
)  # fmt: skip


def build(seed: int = 0, **options) -> Any:
    torch.manual_seed(seed)
    settings = dict(
        student=STUDENT, teacher=TEACHER, align=[dict(student=1, teacher=2)], data_preprocessor=PREPROCESSOR
    )
    return MODELS.build(copy.deepcopy({'type': 'vfd.DMAE', **settings, **options})).train()


def changed(config: dict, **options) -> dict:
    return {**config, **options}


def taught_by(checkpoint: str = 'random', **network) -> dict:
    source = {**TEACHER['source'], **network}
    return {**TEACHER, 'source': source, 'checkpoint': checkpoint}


def images(count: int = 4, seed: int = 0, size: int = SIZE) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def one_mask(model: Any, seed: int = 0) -> Any:
    """The same mask at every step."""

    def draw(inputs):
        noise = torch.rand(len(inputs), PATCHES, generator=torch.Generator().manual_seed(seed))
        return make_mask(noise, model.mask_ratio)

    model.draw_mask = draw
    return model


def train(model: Any, steps: int = 1, lr: float = 1e-3) -> list[dict[str, float]]:
    wrapper = OptimWrapper(torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=lr))
    log = []
    for step in range(steps):
        losses = model(images(seed=step), None, mode='loss')
        log.append({name: value.item() for name, value in losses.items()})
        wrapper.update_params(sum(losses.values()))
    return log


class TokenCounts(dict):
    """Name of a module -> the number of tokens it got, call by call."""

    def watch(self, **modules: torch.nn.Module) -> None:
        for name, module in modules.items():
            self[name] = []
            module.register_forward_pre_hook(lambda _, args, name=name: self[name].append(args[0].shape[1]))
