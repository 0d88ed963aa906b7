"""A BEiT-style vision transformer with feature maps of up to four sizes, for segmentors.

The network is timm's ``Beit`` under timm's names; the upsampling layers (``fpn1``, ``fpn2``) have the names of the
released files. In a config of mmseg::

    backbone=dict(
        type='vfd.BEiTPyramid', arch='small', drop_path_rate=0.1, checkpoint='work_dirs/g2sd_.../epoch_300.pth'),

B images of H x W pixels, patches of side p, width D.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from timm.models.beit import Beit
from torch import Tensor, nn

from vfd.checkpoints import load_into, load_state
from vfd.checkpoints.beit_layout import backbone_tensors
from vfd.compat import require
from vfd.errors import UserError
from vfd.registry import MODELS

from .masked_vit import network_numbers

# Parts that a pre-training does not have; a file holds all tensors of such a part or none.
_NEW_PARTS = ('fpn', 'gamma', 'relative_position_bias_table')


@MODELS.register_module()
class BEiTPyramid(Beit):
    """Vision transformer with absolute and relative positions and layer scale; its maps feed UPerNet.

    Each block has its own table of relative positions, zero at the start, and scales its two branches by vectors that
    start at 1: at the start it is the plain transformer of the pre-training. There is no norm after the last block. Of
    four blocks' outputs the class token is dropped; the first map is enlarged four times, the second twice, the third
    stays, the fourth is halved. With fewer ``out_indices`` there are as many maps, the first ones of these sizes.

    Source: BEiT (arXiv 2106.08254), section on semantic segmentation, as "Generic-to-Specific Distillation of Masked
    Autoencoders" (arXiv 2302.14771) uses it.

    ``checkpoint`` is read when training starts (``init_weights``), so that a trained segmentor is tested and exported
    without that file.

    Args:
        arch: ``tiny``, ``small``, ``base``, ``large`` or ``huge``; or give the three numbers below.
        img_size: side of the images in pixels, or (height, width). The tables belong to this size: others are refused.
        patch_size: side of a patch in pixels.
        embed_dim: width; overrides the arch's.
        depth: number of blocks; overrides the arch's.
        num_heads: heads of a block; overrides the arch's.
        mlp_ratio: width of the hidden layer over ``embed_dim``.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        out_indices: one to four blocks, rising, whose outputs are the maps; published are (3, 5, 7, 11) of 12 blocks
            and (7, 11, 15, 23) of 24.
        norm_cfg: norm layer of the enlarged map; mmengine replaces SyncBN by BN where a run is not distributed.
        checkpoint: weights to start from: a G2SD, DMAE or released MAE file, or a segmentation file (vfd's, or a
            released one). Other sizes of patch and grid are interpolated as
            `vfd.checkpoints.beit_layout.backbone_tensors` says. Every tensor is required, but the pyramid, the
            layer scale and the relative positions may be absent and then keep their initial values.

    Raises:
        UserError: numbers that do not fit together.
    """

    def __init__(
        self,
        arch: str | None = None,
        img_size: int | tuple[int, int] = 512,
        patch_size: int = 16,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        out_indices: Sequence[int] = (3, 5, 7, 11),
        norm_cfg: dict | None = None,
        checkpoint: str | Path | None = None,
    ) -> None:
        require('mmseg')
        embed_dim, depth, num_heads = network_numbers(arch, embed_dim, depth, num_heads)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height % patch_size or width % patch_size or min(height, width) < 2 * patch_size:
            raise UserError(
                f'BEiTPyramid: img_size {height}x{width} has to be divisible by patch_size {patch_size} and at least '
                'two patches wide and high'
            )
        taps = tuple(out_indices)
        if not 1 <= len(taps) <= 4 or sorted(set(taps)) != list(taps) or taps[0] < 0 or taps[-1] >= depth:
            raise UserError(
                f'BEiTPyramid: out_indices={taps}, but one to four rising numbers of blocks are needed, from 0 to '
                f'{depth - 1}'
            )
        super().__init__(
            img_size=(height, width),
            patch_size=patch_size,
            num_classes=0,
            global_pool='',
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
            init_values=1.0,
            use_rel_pos_bias=True,
        )
        self.norm = nn.Identity()
        self.out_indices = taps
        self.checkpoint = checkpoint
        pyramid = MODELS.build(
            {
                'type': 'mmseg.Feature2Pyramid',
                'embed_dim': embed_dim,
                'norm_cfg': norm_cfg or {'type': 'SyncBN'},
            }
        )
        self.fpn1 = pyramid.upsample_4x
        self.fpn2 = pyramid.upsample_2x if len(taps) > 1 else nn.Identity()  # DDP refuses unused parameters

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Return the maps of the blocks ``out_indices``.

        Args:
            images: (B, 3, H, W) of this network's size.

        Returns:
            As many as ``out_indices`` of (B, D, 4H/p, 4W/p), (B, D, 2H/p, 2W/p), (B, D, H/p, W/p) and
            (B, D, H/2p, W/2p).

        Raises:
            UserError: images of another size.
        """
        size = tuple(self.patch_embed.img_size)
        if images.shape[-2:] != size:
            raise UserError(
                f'images of {images.shape[-2]}x{images.shape[-1]} pixels, but BEiTPyramid was built for {size[0]}x'
                f'{size[1]}. Set img_size to the training crop, test with test_cfg=dict(mode="slide", '
                f'crop_size={size}, stride=...), and pad smaller images with '
                f'data_preprocessor.test_cfg=dict(size={size}).'
            )
        maps = self.forward_intermediates(
            images, indices=list(self.out_indices), stop_early=True, intermediates_only=True
        )
        assert isinstance(maps, list)
        scales = (self.fpn1, self.fpn2, nn.Identity(), nn.MaxPool2d(2))
        return tuple(scale(each) for scale, each in zip(scales, maps, strict=False))

    def init_weights(self, needs_reset: bool = True) -> None:
        """Draw all weights (timm, while it builds the network), or load ``checkpoint`` (mmengine, before training).

        Raises:
            UserError: a tensor is not in the file, has another shape, or has no place in the network.
        """
        if not needs_reset:  # how timm's constructor calls it
            super().init_weights(needs_reset=False)
            return
        checkpoint, self.checkpoint = self.checkpoint, None
        if checkpoint is None:
            return
        tensors = backbone_tensors(load_state(checkpoint).state, self)
        homeless = [
            name
            for name in tensors
            if name.startswith(('blocks.', 'rel_pos_bias.')) and name not in self.state_dict()
        ]
        if homeless:
            raise UserError(
                f'{checkpoint} is of another network: BEiTPyramid with {len(self.blocks)} blocks has no place for '
                f'{", ".join(homeless[:4])}{" ..." if len(homeless) > 4 else ""}'
            )
        absent = [part for part in _NEW_PARTS if not any(part in name for name in tensors)]
        report = load_into(
            self,
            tensors,
            needed=lambda name: not any(part in name for part in absent),
            source_name=str(checkpoint),
        )
        new = f'; new: {", ".join(absent)}' if absent else ''
        print_log(f'{type(self).__name__} starts from {report.summary()}{new}', logger='current')

    def timm_form(self) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """Return the transformer as timm alone builds it, without the pyramid.

        timm's network ends in a layer norm that this one does not have (here with weight 1 and bias 0). The maps that
        the pyramid reads are ``forward_intermediates(images, indices=out_indices, intermediates_only=True)``.

        Returns:
            The name and the arguments of ``timm.create_model``, and the tensors under timm's names.
        """
        block: Any = self.blocks[0]
        arguments = {
            'img_size': tuple(self.patch_embed.img_size),
            'patch_size': self.patch_embed.patch_size[0],
            'embed_dim': self.embed_dim,
            'depth': len(self.blocks),
            'num_heads': block.attn.num_heads,
            'mlp_ratio': block.mlp.fc1.out_features / self.embed_dim,
            'init_values': 1.0,
            'use_abs_pos_emb': True,
            'num_classes': 0,
            'global_pool': '',
        }
        state = {name: value for name, value in self.state_dict().items() if not name.startswith('fpn')}
        state['norm.weight'] = self.cls_token.new_ones(self.embed_dim)
        state['norm.bias'] = self.cls_token.new_zeros(self.embed_dim)
        return 'beit_base_patch16_224', arguments, state
