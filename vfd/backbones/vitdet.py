"""ViTDet's backbone: a plain vision transformer with window attention, for detectors.

Paper: "Exploring Plain Vision Transformer Backbones for Object Detection", arXiv 2203.16527. In a config of mmdet::

    backbone=dict(type='vfd.ViTDet', arch='small', drop_path_rate=0.1, checkpoint='work_dirs/g2sd_.../epoch_300.pth'),
    neck=dict(type='vfd.SimpleFeaturePyramid', in_channels=384),

The blocks are those of timm's SAM encoder, which is derived from ViTDet, under the same names. B images of H x W
pixels, patches of side p, width D.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from timm.layers import Format, PatchEmbed, calculate_drop_path_rates, trunc_normal_
from timm.models.vision_transformer_sam import Block, window_partition, window_unpartition
from torch import Tensor, nn, zeros

from vfd.checkpoints import load_into, load_state
from vfd.checkpoints.pos_embed import bicubic_position_embedding
from vfd.errors import UserError
from vfd.registry import MODELS

from .masked_vit import network_numbers


class ViTDetBlock(Block):
    """timm's block, but drop path drops whole images, as in ViTDet; timm's would drop single windows."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, D) to (B, h, w, D)."""
        size = (x.shape[1], x.shape[2])
        mixed = self.norm1(x)
        if self.window_size:
            windows, padded = window_partition(mixed, self.window_size)
            mixed = window_unpartition(self.attn(windows), self.window_size, size, padded)
        else:
            mixed = self.attn(mixed)
        x = x + self.drop_path1(mixed)
        return x + self.drop_path2(self.mlp(self.norm2(x)))


@MODELS.register_module()
class ViTDet(nn.Module):
    """Plain vision transformer whose blocks attend in windows, except for the last block of each quarter.

    Attention has a decomposed relative position besides the absolute one. The absolute position is kept as it was
    pre-trained, with the class token's entry; that entry is dropped and the rest resized (bicubic) to the image's grid
    at every use. There is no norm after the last block. Images may have any size divisible by ``patch_size``; windows
    that stick out are filled with zeros.

    ``checkpoint`` is read when training starts (``init_weights``), so that a trained detector is tested and exported
    without that file.

    Args:
        arch: ``tiny``, ``small``, ``base``, ``large`` or ``huge``; or give the three numbers below.
        embed_dim: width; overrides the arch's.
        depth: number of blocks, at least 4; overrides the arch's.
        num_heads: heads of a block; overrides the arch's.
        img_size: side of the training images in pixels: sets the length of the relative positions of blocks with
            global attention, which are interpolated for other sizes.
        patch_size: side of a patch in pixels.
        pretrain_img_size: side of the images that ``checkpoint`` was trained on: sets the grid of ``pos_embed``.
        window_size: side of a window in patches.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        checkpoint: weights to start from: a G2SD or DMAE checkpoint, a released MAE file, any file with timm's names.
            Every tensor is required but the relative positions, which then start at zero.

    Raises:
        UserError: numbers that do not fit together.
    """

    def __init__(
        self,
        arch: str | None = None,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        img_size: int = 1024,
        patch_size: int = 16,
        pretrain_img_size: int = 224,
        window_size: int = 14,
        drop_path_rate: float = 0.0,
        checkpoint: str | Path | None = None,
    ) -> None:
        super().__init__()
        embed_dim, depth, num_heads = network_numbers(arch, embed_dim, depth, num_heads)
        for name, side in (('img_size', img_size), ('pretrain_img_size', pretrain_img_size)):
            if side < patch_size or side % patch_size:
                raise UserError(f'ViTDet: {name}={side} is not a multiple of patch_size={patch_size}')
        if depth < 4:
            raise UserError(f'ViTDet: depth={depth}; global attention in each quarter needs 4 blocks or more')
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.img_size = img_size
        self.patch_size = patch_size
        self.window_size = window_size
        self.checkpoint = checkpoint
        self.global_blocks = tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))
        self.patch_embed = PatchEmbed(
            pretrain_img_size, patch_size, embed_dim=embed_dim, output_fmt=Format.NHWC, strict_img_size=False
        )
        self.pos_embed = nn.Parameter(zeros(1, 1 + self.patch_embed.num_patches, embed_dim))
        rates: Any = calculate_drop_path_rates(drop_path_rate, depth)
        norm_layer: Any = partial(nn.LayerNorm, eps=1e-6)
        grid = img_size // patch_size
        blocks = [
            ViTDetBlock(
                embed_dim,
                num_heads,
                drop_path=rates[k],
                norm_layer=norm_layer,
                use_rel_pos=True,
                window_size=0 if k in self.global_blocks else window_size,
                input_size=(grid, grid),
            )
            for k in range(depth)
        ]
        self.blocks = nn.Sequential(*blocks)
        self._draw_weights()

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return the map after the last block.

        Args:
            images: (B, 3, H, W), H and W divisible by the patch size.

        Returns:
            One map, (B, D, H/p, W/p).

        Raises:
            UserError: an image size that is not divisible.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise UserError(
                f'images of {height}x{width} pixels are not divisible by patches of {self.patch_size}: set '
                'data_preprocessor.pad_size_divisor=32, which pads the batch.'
            )
        tokens = self.patch_embed(images)  # (B, h, w, D)
        tokens = tokens + self.position((tokens.shape[1], tokens.shape[2]))
        return (self.blocks(tokens).permute(0, 3, 1, 2),)

    def position(self, grid: tuple[int, int]) -> Tensor:
        """Return the absolute position for a grid of h x w patches, (1, h, w, D)."""
        patches = self.pos_embed[:, 1:]
        if grid != tuple(self.patch_embed.grid_size):
            patches = bicubic_position_embedding(patches, grid, prefix=0)
        return patches.unflatten(1, grid)

    def init_weights(self) -> None:
        """Load ``checkpoint``; mmengine's runner calls this once, before training.

        Raises:
            UserError: a tensor is not in the file, or has another shape.
        """
        checkpoint, self.checkpoint = self.checkpoint, None
        if checkpoint is None:
            return
        file = load_state(checkpoint)
        # Named here, so that an error names what this network lacks and not that no prefix fits wholly.
        stem = 'patch_embed.proj.weight'
        prefixes = [name.removesuffix(stem) for name in file.state if name.endswith(stem)]
        prefix = prefixes[0] if len(prefixes) == 1 else ''
        table = file.state.get(f'{prefix}pos_embed', self.pos_embed)
        if table.shape[1] != self.pos_embed.shape[1]:
            raise UserError(
                f'{checkpoint} has a position table of {table.shape[1]} entries, ViTDet of {self.pos_embed.shape[1]}: '
                f'set pretrain_img_size to the image size of that file (now {self.patch_embed.img_size[0]}).'
            )
        report = load_into(self, file, prefix=prefix, needed=lambda name: '.rel_pos_' not in name)
        print_log(f'{type(self).__name__} starts from {report.summary()}', logger='current')

    def timm_form(self) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """Return this network as timm alone builds it.

        timm's encoder ends in a layer norm that ViTDet does not have (here with weight 1 and bias 0). The map of this
        class is the last one of ``forward_intermediates(images, intermediates_only=True)``.

        Returns:
            The name and the arguments of ``timm.create_model``, and the tensors under timm's names.
        """
        arguments = {
            'img_size': self.img_size,
            'patch_size': self.patch_size,
            'embed_dim': self.embed_dim,
            'depth': len(self.blocks),
            'num_heads': self.num_heads,
            'window_size': self.window_size,
            'global_attn_indexes': self.global_blocks,
            'norm_layer': '',  # timm takes 1e-6 when it is empty, otherwise a default of 1e-5
            'neck_chans': 0,
            'num_classes': 0,
        }
        grid = self.img_size // self.patch_size
        state = {
            **self.state_dict(),
            'pos_embed': self.position((grid, grid)).detach(),
            'neck.weight': self.pos_embed.new_ones(self.embed_dim),
            'neck.bias': self.pos_embed.new_zeros(self.embed_dim),
        }
        return 'samvit_base_patch16', arguments, state

    def _draw_weights(self) -> None:
        """Initialise as ViTDet does: truncated normal linears and positions; relative positions are zero."""
        trunc_normal_(self.pos_embed, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
