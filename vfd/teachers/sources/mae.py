"""The network of a masked-autoencoder teacher: encoder and, where a tap needs it, decoder.

====================  =======================  ==========================================================
tap                   shape                    what it is
====================  =======================  ==========================================================
``block.<k>``         (B, 1 + K, D)            tokens after encoder block k, before the final norm
``latent``            (B, 1 + K, D)            tokens after the final norm
``cls``               (B, D)                   the class token after the final norm
``decoder.<k>``       (B, 1 + L, E)            tokens after decoder block k, before the decoder's norm
``pixels``            (B, L, p*p*3)            prediction for every patch
====================  =======================  ==========================================================

B images of L patches of side p, K of them visible; D and E are the widths of encoder and decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vfd.backbones import MaskedAutoencoder, MaskedViT
from vfd.backbones.masked_autoencoder import require_decoder
from vfd.checkpoints import StateFile
from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization

from .source import SIZE_ERRORS, check_image_size, check_taps, tap_index

_DECODER_ARGUMENTS = ('decoder_embed_dim', 'decoder_depth', 'decoder_num_heads')


@MODELS.register_module()
class MAESource:
    """A masked autoencoder as teacher; blocks that no tap needs are not built and need no weights.

    Args:
        taps: the taps that will be computed, see above.
        pretrained: refused: the released weights are files, give one as the teacher's checkpoint.
        **network: arguments of :class:`vfd.MaskedAutoencoder` (``arch``, ``img_size``, ``patch_size``,
            ``decoder_embed_dim`` ...). The decoder's have no effect where no tap needs the decoder.

    Raises:
        UserError: a tap that the network does not have, or ``pretrained``.
    """

    num_classes = None
    reads = frozenset({'ids_keep'})
    resize_rule = 'mae'

    def __init__(self, taps: Sequence[str] = ('latent',), pretrained: bool = False, **network: Any) -> None:
        self.name = f'mae:{network.get("arch") or network.get("embed_dim")}'
        if pretrained:
            raise UserError(
                f'{self.name}: the released MAE weights are files; give one as checkpoint=..., for example '
                'checkpoints/mae_pretrain_vit_base_full.pth'
            )
        check_taps(taps, ('block', 'latent', 'cls', 'decoder', 'pixels'), self.name)
        self.normalization = Normalization.from_unit((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self._decodes = any(tap == 'pixels' or tap.startswith('decoder.') for tap in taps)
        self.network: Any
        if self._decodes:
            outputs = 1 if 'pixels' in taps else 0
            self.network = MaskedAutoencoder(**{**network, 'pixel_outputs': outputs})
        else:
            self.network = MaskedViT(**{k: v for k, v in network.items() if k not in _DECODER_ARGUMENTS})
        side = self.network.patch_embed.img_size
        self.image_size: tuple[int, int] = (side[0], side[1])
        self._index = {tap: self._number(tap) for tap in taps if '.' in tap}
        self._cut(taps)

    @property
    def num_patches(self) -> int:
        """L, the number of patches of an image."""
        return self.network.num_patches

    def channels(self, tap: str) -> int:
        """Return the channels of a tap's features."""
        if tap == 'pixels':
            return self.network.decoder_pred.out_features
        if tap.startswith('decoder.'):
            return self.network.mask_token.shape[-1]
        return self.network.embed_dim

    def block_index(self, tap: str) -> int:
        """Return the block of a tap, counted from 0."""
        return self._index[tap]

    def check_file(self, file: StateFile) -> None:
        """Raise for a file of the encoder alone where the decoder is needed.

        Raises:
            UserError: the decoder is missing.
        """
        if self._decodes:
            taps = [tap for tap in self._index if tap.startswith('decoder.')] or ['pixels']
            require_decoder(file, f'the tap {", ".join(taps)}')

    def forward_taps(
        self, images: Tensor, taps: Sequence[str], ids_keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See :class:`~vfd.teachers.sources.source.Source`."""
        try:
            return self._run(images, taps, ids_keep)
        except SIZE_ERRORS as error:
            check_image_size(error, self.name, images, self.image_size, 'img_size={0} in its source')
            raise

    def _run(self, images: Tensor, taps: Sequence[str], ids_keep: Tensor | None) -> dict[str, Tensor]:
        vit = self.network
        tapped = {tap: k for tap, k in self._index.items() if tap in taps and tap.startswith('block.')}
        if len(tapped) == len(taps):  # nothing behind the last tap runs
            outputs = vit.forward_blocks(images, ids_keep, tapped.values())
            return {tap: outputs[k] for tap, k in tapped.items()}
        if 'cls' in taps and len(tapped) + 1 == len(taps):
            return self._with_cls(images, ids_keep, tapped)
        latent, outputs = vit.forward_tokens(images, ids_keep, tuple(tapped.values()))
        features = {tap: outputs[k] for tap, k in tapped.items()}
        if 'latent' in taps:
            features['latent'] = latent
        if 'cls' in taps:
            features['cls'] = latent[:, 0]
        if self._decodes:
            self._decode(latent, ids_keep, taps, features)
        return features

    def _with_cls(self, images: Tensor, ids_keep: Tensor | None, tapped: dict[str, int]) -> dict[str, Tensor]:
        """Compute the class token without the last block's other outputs."""
        vit = self.network
        before = len(vit.blocks) - 2
        outputs = vit.forward_blocks(images, ids_keep, {before, *tapped.values()}) if before >= 0 else {}
        tokens = outputs[before] if before >= 0 else vit.sequence(images, ids_keep)
        return {'cls': vit.cls_of(tokens), **{tap: outputs[k] for tap, k in tapped.items()}}

    def _decode(
        self, latent: Tensor, ids_keep: Tensor | None, taps: Sequence[str], features: dict[str, Tensor]
    ) -> None:
        vit = self.network
        if ids_keep is None:
            ids_keep = torch.arange(self.num_patches, device=latent.device).expand(len(latent), -1)
        tokens = vit.decoder_sequence(latent, ids_keep)
        wanted = {tap: k for tap, k in self._index.items() if tap in taps and tap.startswith('decoder.')}
        for k, block in enumerate(vit.decoder_blocks):
            tokens = block(tokens)
            features.update({tap: tokens for tap, index in wanted.items() if index == k})
        if 'pixels' in taps:
            features['pixels'] = vit.pixels(tokens[:, 1:])

    def _number(self, tap: str) -> int:
        kind = tap.partition('.')[0]
        blocks = self.network.blocks if kind == 'block' else self.network.decoder_blocks
        return tap_index(tap, kind, len(blocks), self.name)

    def _cut(self, taps: Sequence[str]) -> None:
        """Remove the layers that no tap needs."""
        encoder = [k for tap, k in self._index.items() if tap.startswith('block.')]
        if len(encoder) == len(taps):
            self.network.blocks = self.network.blocks[: max(encoder) + 1]
            self.network.norm = torch.nn.Identity()
        decoder = [k for tap, k in self._index.items() if tap.startswith('decoder.')]
        if decoder and 'pixels' not in taps:
            self.network.decoder_blocks = self.network.decoder_blocks[: max(decoder) + 1]
