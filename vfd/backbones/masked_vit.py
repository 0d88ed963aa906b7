"""A vision transformer on a subset of the patches, with features at its blocks.

The network is timm's ``VisionTransformer``, so weights keep timm's names, which are also those of the released MAE
files. B images, L patches, K visible patches, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vfd.checkpoints import load_into, load_state
from vfd.errors import UserError, did_you_mean
from vfd.losses.pixel import select_patches
from vfd.registry import MODELS

from .partial_block import block_at
from .sincos import sincos_position_table

# name: width, blocks, heads
ARCHS = {
    'tiny': (192, 12, 3),
    'small': (384, 12, 6),
    'base': (768, 12, 12),
    'large': (1024, 24, 16),
    'huge': (1280, 32, 16),
}


@MODELS.register_module()
class MaskedViT(VisionTransformer):
    """The encoder of a masked autoencoder (arXiv 2111.06377): class token, sine-cosine positions, pre-norm blocks.

    Args:
        arch: ``tiny``, ``small``, ``base``, ``large`` or ``huge``; or give the three numbers below.
        img_size: side of the images in pixels, divisible by ``patch_size``; (height, width) if not square.
        patch_size: side of a patch in pixels.
        embed_dim: width; overrides the arch's.
        depth: number of blocks; overrides the arch's.
        num_heads: heads of a block; overrides the arch's.
        mlp_ratio: width of the hidden layer over ``embed_dim``.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        norm_eps: epsilon of the layer norms; 1e-6 in the released files, 1e-12 in Hugging Face's MAE.
        checkpoint: weights to start from; every tensor of this network has to be in the file.
        resize_pos_embed: allow a file whose position table has another grid, and interpolate it.

    Raises:
        UserError: an unknown arch, numbers that do not fit together, or a checkpoint of another network.
    """

    cls_token: nn.Parameter
    pos_embed: nn.Parameter
    blocks: Any  # timm's blocks, whose parts are typed as modules only

    def __init__(
        self,
        arch: str | None = None,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-6,
        checkpoint: str | Path | None = None,
        resize_pos_embed: bool = False,
    ) -> None:
        embed_dim, depth, num_heads = network_numbers(arch, embed_dim, depth, num_heads)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height % patch_size or width % patch_size or min(height, width) < patch_size:
            raise UserError(
                f'img_size {height}x{width} is not divisible by patch_size {patch_size}: resize the images to '
                f'{max(1, round(height / patch_size)) * patch_size}x{max(1, round(width / patch_size)) * patch_size}, '
                'or choose another patch_size.'
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
            norm_layer=partial(nn.LayerNorm, eps=norm_eps),
            weight_init='skip',
        )
        self.patch_size = patch_size
        self.grid: tuple[int, int] = (height // patch_size, width // patch_size)
        self.pos_embed = nn.Parameter(sincos_position_table(embed_dim, self.grid), requires_grad=False)
        self._initialise()
        if checkpoint is not None:
            self.load(checkpoint, resize_pos_embed)

    @property
    def num_patches(self) -> int:
        """L, the number of patches of an image."""
        return self.grid[0] * self.grid[1]

    def init_weights(self, mode: str = '', needs_reset: bool = True) -> None:
        """Do nothing: mmengine and timm call it, but this network is complete once it is built."""

    def load(self, checkpoint: str | Path, resize_pos_embed: bool = False) -> None:
        """Load all of this network's tensors; raise an error if one is missing."""
        load_into(self, load_state(checkpoint), resize_pos_embed='mae' if resize_pos_embed else False)

    def embed(self, images: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        """Embed patches with their positions; patches that are not kept cost nothing.

        Args:
            images: (B, 3, H, W) of this network's size.
            ids_keep: (B, K) long, the patches to embed, in that order; None embeds all.

        Returns:
            (B, K or L, D), without the class token.
        """
        position = self.pos_embed[:, 1:]
        if ids_keep is None:
            return self.patch_embed(images) + position
        if images.shape[-2:] != tuple(self.patch_embed.img_size):
            raise UserError(
                f'images of {images.shape[-2]}x{images.shape[-1]} pixels, but the network was built for '
                f'{self.patch_embed.img_size[0]}x{self.patch_embed.img_size[1]}: set img_size or the crop size.'
            )
        projection = self.patch_embed.proj
        patches = select_patches(images, self.patch_size, ids_keep).flatten(2)
        tokens = F.linear(patches, projection.weight.flatten(1), projection.bias)
        return tokens + position[0][ids_keep]

    def sequence(self, images: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        """Return the tokens before the first block, class token first: (B, 1 + K, D)."""
        tokens = self.embed(images, ids_keep)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)
        return torch.cat([cls, tokens], dim=1)

    def forward_blocks(
        self, images: Tensor, ids_keep: Tensor | None, taps: Iterable[int]
    ) -> dict[int, Tensor]:
        """Run up to the last tap and no further.

        Args:
            images: (B, 3, H, W).
            ids_keep: (B, K) visible patches, or None for all.
            taps: block indices from 0.

        Returns:
            The tokens (B, 1 + K, D) after each tapped block, before any norm.
        """
        wanted = set(taps)
        tokens, tapped = self.sequence(images, ids_keep), {}
        for k, block in enumerate(self.blocks[: max(wanted) + 1]):
            tokens = block(tokens)
            if k in wanted:
                tapped[k] = tokens
        return tapped

    def forward_cls(self, images: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        """Return the class token after the final norm, (B, D); the last block computes nothing else.

        Arguments as in `forward_tokens`.
        """
        tokens = self.sequence(images, ids_keep)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        return self.cls_of(tokens)

    def cls_of(self, tokens: Tensor) -> Tensor:
        """Return the class token (B, D) after last block and final norm, from the tokens (B, 1 + K, D) before them."""
        first = tokens.new_zeros((tokens.shape[0], 1), dtype=torch.long)
        return self.norm(block_at(self.blocks[-1], tokens, first))[:, 0]

    def forward_tokens(
        self, images: Tensor, ids_keep: Tensor | None = None, taps: Sequence[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Run all blocks.

        Args:
            images: (B, 3, H, W).
            ids_keep: (B, K) visible patches, or None for all.
            taps: block indices whose output is returned as well.

        Returns:
            The tokens (B, 1 + K, D) after the final norm, class token first, and for each tap those after the block.
        """
        last = len(self.blocks) - 1
        tapped = self.forward_blocks(images, ids_keep, {*taps, last})
        return self.norm(tapped[last]), {k: tapped[k] for k in taps}

    def forward(  # type: ignore[override]  # timm's takes an attention mask, mmengine a mode
        self, x: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> Tensor:
        """Return the tokens (B, 1 + L, D) of whole images (B, 3, H, W) after the final norm.

        The other arguments are mmengine's; a network without a task has no mode but ``tensor``.
        """
        assert mode == 'tensor', mode
        return self.forward_tokens(x)[0]

    def timm_form(self) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """Return the encoder as timm alone builds it; called with images it outputs the tokens of ``forward``.

        Returns:
            The name and the arguments of ``timm.create_model``, and the tensors under timm's names.
        """
        block: Any = self.blocks[0]
        numbers = (self.embed_dim, len(self.blocks), block.attn.num_heads)
        arch = next((name for name, known in ARCHS.items() if known == numbers), 'base')
        arguments: dict[str, Any] = {
            'img_size': tuple(self.patch_embed.img_size),
            'patch_size': self.patch_size,
            'mlp_ratio': block.mlp.fc1.out_features / self.embed_dim,
            'num_classes': 0,
            'global_pool': '',
        }
        if numbers != ARCHS[arch]:
            arguments |= dict(zip(('embed_dim', 'depth', 'num_heads'), numbers, strict=True))
        name = f'vit_{arch}_patch{14 if arch == "huge" else 16}_224'
        own = ('cls_token', 'pos_embed', 'patch_embed', 'blocks', 'norm')  # a child class may add a decoder
        return name, arguments, {k: v for k, v in self.state_dict().items() if k.split('.')[0] in own}

    def tap_index(self, index: int, what: str = 'tap') -> int:
        """Return a block index with negative numbers counted from the end.

        Raises:
            UserError: there is no such block.
        """
        count = len(self.blocks)
        if not -count <= index < count:
            raise UserError(f'{what} {index}: the network has the blocks 0 to {count - 1}')
        return index % count

    def _initialise(self) -> None:
        """Initialise as MAE does ("implementation details"): Xavier-uniform linears, normal tokens."""
        xavier_linears(self)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.data.flatten(1))  # its bias keeps the default
        nn.init.normal_(self.cls_token, std=0.02)


def xavier_linears(module: nn.Module) -> None:
    """Draw Xavier-uniform weights, with zero biases, for every linear layer; set layer norms to 1 and 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            part.reset_parameters()


def network_numbers(arch: str | None, *given: int | None) -> tuple[int, int, int]:
    """Return width, depth and heads of an arch, overridden by what was given."""
    if arch is not None and arch not in ARCHS:
        raise UserError(f'arch="{arch}"{did_you_mean(arch, ARCHS)}; archs: {", ".join(ARCHS)}')
    known: Sequence[Any] = ARCHS[arch] if arch else (None, None, None)
    values = [known[i] if value is None else value for i, value in enumerate(given)]
    if None in values:
        raise UserError('give arch="small" (or tiny, base, large, huge), or embed_dim, depth and num_heads')
    embed_dim, depth, num_heads = values
    if embed_dim % num_heads:
        raise UserError(f'embed_dim={embed_dim} is not divisible by num_heads={num_heads}')
    return embed_dim, depth, num_heads
