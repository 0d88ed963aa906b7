"""A masked autoencoder: the masked ViT and a light decoder, under the names of the released files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from vfd.checkpoints import StateFile, load_into, load_state
from vfd.errors import UserError
from vfd.registry import MODELS

from .masked_vit import MaskedViT, xavier_linears
from .masking import PatchMask
from .partial_block import block_at
from .sincos import sincos_position_table


@MODELS.register_module()
class MaskedAutoencoder(MaskedViT):
    """Encoder and decoder of MAE (arXiv 2111.06377, section 3). E is the decoder's width.

    Args:
        arch: see `MaskedViT`.
        decoder_embed_dim: width E of the decoder, divisible by 4 and by its heads.
        decoder_depth: number of its blocks.
        decoder_num_heads: heads of its blocks.
        pixel_outputs: predictions for a patch side by side: 1 as published; 0 leaves out the norm and the pixel head
            at the end, for methods that read the decoder's tokens.
        **encoder: the other arguments of `MaskedViT`.

    Raises:
        UserError: numbers that do not fit together, or a checkpoint without the decoder.
    """

    def __init__(
        self,
        arch: str | None = None,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        pixel_outputs: int = 1,
        checkpoint: str | None = None,
        resize_pos_embed: bool = False,
        **encoder: Any,
    ) -> None:
        super().__init__(arch, **encoder)
        if decoder_embed_dim % decoder_num_heads:
            raise UserError(
                f'decoder_embed_dim={decoder_embed_dim} is not divisible by decoder_num_heads={decoder_num_heads}'
            )
        norm_layer: Any = partial(nn.LayerNorm, eps=encoder.get('norm_eps', 1e-6))
        self.decoder_embed = nn.Linear(self.embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        table = sincos_position_table(decoder_embed_dim, self.grid)
        self.decoder_pos_embed = nn.Parameter(table, requires_grad=False)
        blocks = [
            Block(decoder_embed_dim, decoder_num_heads, qkv_bias=True, norm_layer=norm_layer)
            for _ in range(decoder_depth)
        ]
        self.decoder_blocks = nn.ModuleList(blocks)
        self.pixel_outputs = pixel_outputs
        if pixel_outputs:
            self.decoder_norm = norm_layer(decoder_embed_dim)
            self.decoder_pred = nn.Linear(decoder_embed_dim, pixel_outputs * 3 * self.patch_size**2)
        for part in self.children():
            if part not in (self.patch_embed, self.blocks, self.norm):
                xavier_linears(part)
        nn.init.normal_(self.mask_token, std=0.02)
        if checkpoint is not None:
            self.load(checkpoint, resize_pos_embed)

    def load(self, checkpoint: str | Path, resize_pos_embed: bool = False) -> None:
        """Load all weights of encoder and decoder; raise an error if one is missing."""
        file = load_state(checkpoint)
        require_decoder(file, 'MaskedAutoencoder')
        load_into(self, file, resize_pos_embed='mae' if resize_pos_embed else False)

    def decoder_sequence(self, latent: Tensor, ids_keep: Tensor) -> Tensor:
        """Return the decoder's input: visible tokens at their places, the mask token elsewhere, positions added.

        Args:
            latent: (B, 1 + K, D), the encoder's tokens after its norm.
            ids_keep: (B, K), which patches they are.

        Returns:
            (B, 1 + L, E), class token first, patches row by row.
        """
        embedded = self.decoder_embed(latent)
        batch, _, width = embedded.shape
        patches = self.mask_token.to(embedded.dtype).expand(batch, self.num_patches, -1)
        patches = patches.scatter(1, ids_keep[:, :, None].expand(-1, -1, width), embedded[:, 1:])
        return torch.cat([embedded[:, :1], patches], dim=1) + self.decoder_pos_embed

    def decode(self, latent: Tensor, ids_keep: Tensor, blocks: int | None = None) -> Tensor:
        """Return the decoder's tokens (B, 1 + L, E) after its first ``blocks`` blocks (None: all), before any norm."""
        tokens = self.decoder_sequence(latent, ids_keep)
        for block in self.decoder_blocks[:blocks]:
            tokens = block(tokens)
        return tokens

    def decode_masked(self, latent: Tensor, mask: PatchMask) -> Tensor:
        """Return the decoder's tokens of the hidden patches: (B, L - K, E), in the order of ``mask.ids_masked``."""
        tokens = self.decode(latent, mask.ids_keep, len(self.decoder_blocks) - 1)
        return block_at(self.decoder_blocks[-1], tokens, mask.ids_masked + 1)

    def pixels(self, tokens: Tensor) -> Tensor:
        """Turn decoder tokens (B, N, E) into pixels (B, N, p*p*3 times ``pixel_outputs``)."""
        return self.decoder_pred(self.decoder_norm(tokens))

    def reconstruct(self, images: Tensor, mask: PatchMask) -> Tensor:
        """Predict all patches from the visible ones: (B, L, p*p*3), row by row."""
        latent, _ = self.forward_tokens(images, mask.ids_keep)
        return self.pixels(self.decode(latent, mask.ids_keep)[:, 1:])


def require_decoder(file: StateFile, needed_by: str) -> None:
    """Raise for a file of the encoder alone where the decoder is needed.

    Args:
        file: of a masked autoencoder.
        needed_by: what needs the decoder, for the message.

    Raises:
        UserError: the decoder is missing.
    """
    if not any('decoder_embed' in name for name in file.state):
        raise UserError(
            f'{file.path} holds the encoder of a masked autoencoder but not its decoder, which {needed_by} needs; a '
            'random decoder would teach noise. Take the full file: mae_pretrain_vit_base_full.pth (normalised '
            'pixels) or mae_visualize_vit_base.pth (raw pixels), or the same of your size.'
        )
