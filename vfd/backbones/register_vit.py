"""timm's vision transformer with register tokens that it was not trained with.

Paper: "Vision Transformers with Self-Distilled Registers", NeurIPS 2025, arXiv 2505.21501. In a config::

    student = dict(type='vfd.RegisterViT', model_name='vit_base_patch14_dinov2', unlock_last_blocks=1)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vfd.errors import UserError, did_you_mean
from vfd.registry import MODELS

from .registers import PosInterp, RegisterBackbone, check_register_settings, not_fetched


@MODELS.register_module()
class RegisterViT(RegisterBackbone):
    """A vision transformer of timm, its tensors under timm's names, and m registers without position.

    Its output is the patch tokens after the final norm. The order of tokens is class token, registers, patches. Images
    may have any size that is a multiple of the patch size. The class token's position is an entry of the table of its
    own, which trains, while ``cls_token`` stays frozen.

    Args:
        model_name: timm's name, of a plain transformer with class token and learned positions (DINOv2, DeiT,
            AugReg, MAE ...). Its own registers, rotary positions and windows are not supported.
        num_registers: m; 0 for the transformer as it is.
        img_size: side of the images that the table of positions is for; None takes the model's. Weights with another
            grid are interpolated once, when they are loaded.
        pos_interp: how positions are interpolated for other sizes, see
            :func:`~vfd.backbones.registers.resample_positions`.
        unlock_last_blocks: freeze all but registers, positions, patch embedding and this many blocks from the end
            (1 as published for DINOv2); None freezes nothing.
        frozen: freeze everything, for probes.
        pretrained: take timm's published weights.
        checkpoint: weights to start from, read by ``init_weights``: timm's, DINOv2's or Hugging Face's names, the
            released PH-Reg files, vfd's checkpoints. ``'random'`` says that none are wanted.
        kwargs: passed to ``timm.create_model`` (``depth``, ``embed_dim``, ``drop_path_rate`` ...).

    Raises:
        UserError: a network of another kind, or settings that do not fit.
    """

    published_unlock = 1
    _registers = 'reg_token'
    _table = 'pos_embed'
    _stem = 'patch_embed.proj.weight'

    def __init__(
        self,
        model_name: str,
        num_registers: int = 16,
        img_size: int | Sequence[int] | None = None,
        pos_interp: PosInterp = 'scale01',
        unlock_last_blocks: int | None = None,
        frozen: bool = False,
        pretrained: bool = False,
        checkpoint: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_register_settings(type(self).__name__, num_registers, pos_interp)
        network = _build(model_name, img_size, kwargs)
        self.patch_embed: Any = network.patch_embed
        self.cls_token = network.cls_token
        self.pos_embed = network.pos_embed
        self.norm_pre = network.norm_pre
        self.blocks: Any = network.blocks
        self.norm: nn.Module = network.norm
        self.num_registers = num_registers
        self.pos_interp = pos_interp
        self.embed_dim = self.out_channels = network.embed_dim
        self.patch_size = int(network.patch_embed.patch_size[0])
        self.grid = tuple(network.patch_embed.grid_size)
        self.mean, self.std = (tuple(network.pretrained_cfg[key]) for key in ('mean', 'std'))
        self.reg_token = self.draw_registers(1, num_registers)
        self.checkpoint = checkpoint
        self._timm = model_name.partition('.')[0], dict(kwargs)
        if pretrained:
            self.load_weights(_published(model_name, kwargs), model_name)
        self.set_training(unlock_last_blocks, frozen)

    def blocks_of(self) -> nn.Sequential:
        """See the base class."""
        return self.blocks

    def position_table(self) -> Tensor:
        """See the base class."""
        assert self.pos_embed is not None
        return self.pos_embed[0]

    def trainable(self) -> list[nn.Parameter]:
        """See the base class."""
        registers = [] if self.reg_token is None else [self.reg_token]
        return [*registers, self.pos_embed, *self.patch_embed.proj.parameters()]

    def _activation(self) -> nn.Module:
        return self.blocks[0].mlp.act

    def project(self, images: Tensor) -> Tensor:
        """See the base class."""
        return self.patch_embed(images)

    def sequence(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """See the base class: (B, T, D) to (B, 1 + m + T, D)."""
        assert self.cls_token is not None
        positions = self.positions(grid)
        first = [self.cls_token + positions[:1]]
        first += [] if self.reg_token is None else [self.reg_token]
        prefix = torch.cat(first, dim=1).expand(patches.shape[0], -1, -1)
        return self.norm_pre(torch.cat([prefix, patches + positions[1:]], dim=1))

    def tokens_of(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return all tokens after the final norm, (B, 1 + m + T, D), for embedded patches without positions."""
        return self.norm(self.blocks(self.sequence(patches, grid)))

    def dense_of(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """See the base class."""
        return self.tokens_of(patches, grid)[:, 1 + self.num_registers :]

    def tokens(self, images: Tensor) -> Tensor:
        """Return all tokens after the final norm: class token, registers, patches row by row, (B, 1 + m + T, D)."""
        patches = self.embed(images)
        return self.tokens_of(patches.flatten(1, 2), (patches.shape[1], patches.shape[2]))

    def timm_form(self) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """Return this network as timm alone builds it; called with images it outputs `tokens`.

        timm's registers come without position, and then its class token too: that position is added to the class token
        here, and nowhere else.

        Returns:
            The name and the arguments of ``timm.create_model``, and the tensors under timm's names.
        """
        name, given = self._timm
        size = tuple(side * self.patch_size for side in self.grid)
        arguments = {**given, 'img_size': size, 'num_classes': 0, 'global_pool': ''}
        state = {key: value.detach() for key, value in self.state_dict().items()}
        if self.num_registers:
            arguments |= {'reg_tokens': self.num_registers, 'no_embed_class': True}
            state['cls_token'] = state['cls_token'] + state['pos_embed'][:, :1]
            state['pos_embed'] = state['pos_embed'][:, 1:]
        return name, arguments, state


def _build(model_name: str, img_size: int | Sequence[int] | None, kwargs: dict[str, Any]) -> Any:
    """Build timm's network; raise an error that names what is wrong with it."""
    size: dict[str, Any] = {}
    if img_size is not None:
        size['img_size'] = img_size if isinstance(img_size, int) else tuple(img_size)
    fixed: dict[str, Any] = {'num_classes': 0, 'global_pool': '', 'dynamic_img_size': True}
    refused = sorted({*fixed, 'reg_tokens', 'no_embed_class', 'class_token', 'pos_embed'} & set(kwargs))
    if refused:
        raise UserError(f'RegisterViT sets {", ".join(refused)} itself: leave it out')
    if dropped := sorted({'pos_drop_rate', 'patch_drop_rate'} & set(kwargs)):
        raise UserError(f'RegisterViT drops no tokens and no positions: leave {", ".join(dropped)} out')
    try:
        network: Any = timm.create_model(model_name, **fixed, **size, **kwargs)
    except RuntimeError as error:
        if 'Unknown model' not in str(error):
            raise
        hint = did_you_mean(model_name.partition('.')[0], timm.list_models())
        raise UserError(f'timm has no model "{model_name}"{hint}') from None
    except TypeError as error:
        raise UserError(f'RegisterViT: {model_name} does not take these arguments: {error}') from None
    plain = (
        type(network) is VisionTransformer
        and network.num_prefix_tokens == 1
        and network.has_class_token
        and network.pos_embed is not None
        and network.pos_embed.shape[1] == network.patch_embed.num_patches + 1
    )
    if not plain:
        raise UserError(
            f'RegisterViT: {model_name} is no plain vision transformer with a class token, a learned position for it, '
            'and no registers of its own. Take one such as vit_base_patch14_dinov2.'
        )
    return network


def _published(model_name: str, kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """Load timm's published weights, with the table of positions that they were trained with."""
    try:
        return timm.create_model(
            model_name, pretrained=True, num_classes=0, global_pool='', **kwargs
        ).state_dict()
    except OSError as error:
        raise not_fetched(model_name, error) from error
    except RuntimeError as error:
        if 'pretrained' not in str(error):
            raise
        known = ', '.join(timm.list_pretrained(f'{model_name.partition(".")[0]}.*')) or 'none'
        raise UserError(f'timm: {error} It publishes: {known}.') from None
