"""A network of timm as teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vfd.errors import UserError, did_you_mean
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization

from .source import check_taps, not_fetched, tap_index


@MODELS.register_module()
class TimmSource:
    """A timm network.

    Layers behind the last tap are cut off when only ``block`` and ``stage`` taps are asked for, the classifier when
    no logits are asked for; a checkpoint need not have them.

    Args:
        model_name: timm's name, ``name`` or ``name.tag``.
        taps: the taps that will be asked for.
        pretrained: take timm's published weights (downloaded by timm). :class:`~vfd.teachers.Teacher` sets it.
        kwargs: passed to ``timm.create_model`` (``num_classes``, ``img_size``, ...).
    """

    def __init__(
        self, model_name: str, taps: Sequence[str] = ('logits',), pretrained: bool = False, **kwargs: Any
    ) -> None:
        import timm

        self.name = f'timm:{model_name}'
        network: Any
        try:
            network = timm.create_model(model_name, pretrained=pretrained, **kwargs)
        except RuntimeError as error:
            if 'Invalid pretrained tag' in str(error) or 'No pretrained weights' in str(error):
                known = ', '.join(timm.list_pretrained(f'{model_name.partition(".")[0]}.*')) or 'none'
                raise UserError(f'timm: {error} It publishes: {known}.') from None
            if 'Unknown model' not in str(error):
                raise
            hint = did_you_mean(model_name.partition('.')[0], timm.list_models())
            raise UserError(f'timm has no model "{model_name}"{hint}') from None
        except TypeError as error:
            raise UserError(f'timm model "{model_name}" does not take these arguments: {error}') from None
        except OSError as error:
            raise not_fetched(self.name, error) from error
        cfg = network.pretrained_cfg
        published = cfg.get('num_classes')
        if pretrained and 'logits' in taps and kwargs.get('num_classes', published) != published:
            raise UserError(
                f'teacher {model_name}: the published weights have {published} classes, num_classes='
                f'{kwargs["num_classes"]} would leave the classifier random. Give a checkpoint fine-tuned on '
                f'your classes, or tap "pooled".'
            )
        self.normalization = Normalization.from_unit(cfg['mean'], cfg['std'])
        self.num_classes: int | None = network.num_classes
        self.network: Any = network
        self._transformer = hasattr(network, 'blocks') and hasattr(network, '_pos_embed')
        self.reads = frozenset({'ids_keep'} if self._transformer else ())
        kinds = ['logits', 'pooled']
        if hasattr(network, 'forward_intermediates'):
            kinds.append('stage')
        if self._transformer:
            kinds.append('block')
        check_taps(taps, kinds, self.name)
        # before the cut: numbers from the end mean those of the whole network
        self._index = {tap: self._number(tap) for tap in taps if '.' in tap}
        self._cut(taps)

    @property
    def num_patches(self) -> int | None:
        """The number of patches of an image of the network's size; None for a network without patch tokens."""
        return self.network.patch_embed.num_patches if self._transformer else None

    def channels(self, tap: str) -> int:
        """Channels of the answer at a ``block`` tap."""
        assert tap in self._index and tap.startswith('block.'), tap
        return self.network.embed_dim

    def block_index(self, tap: str) -> int:
        """The block of a tap, counted from 0."""
        return self._index[tap]

    def _cut(self, taps: Sequence[str]) -> None:
        """Take away what no tap needs."""
        if 'logits' in taps:
            return
        if 'pooled' not in taps and hasattr(self.network, 'prune_intermediate_layers'):
            last = max(self._index.values())
            self.network.prune_intermediate_layers([last], prune_norm=True, prune_head=True)
        else:
            self.network.reset_classifier(0)
        self.num_classes = None

    def _number(self, tap: str) -> int:
        kind = tap.partition('.')[0]
        count = len(self.network.blocks) if self._transformer else len(self.network.feature_info)
        return tap_index(tap, kind, count, self.name)

    def forward_taps(
        self, images: Tensor, taps: Sequence[str], ids_keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See :class:`~vfd.teachers.sources.source.Source`."""
        if self._transformer:
            return self._answer_tokens(images, taps, ids_keep)
        out = {}
        stages = {tap: self._index[tap] for tap in taps if tap.startswith('stage.')}
        if stages:
            indices = sorted(set(stages.values()))
            whole = len(stages) < len(taps)
            result = self.network.forward_intermediates(
                images, indices=indices, stop_early=not whole, intermediates_only=not whole
            )
            features, maps = result if whole else (None, result)
            out = {tap: maps[indices.index(k)] for tap, k in stages.items()}
        else:
            features = self.network.forward_features(images)
        if features is not None:
            out.update(self._head(features, taps))
        return out

    def _answer_tokens(
        self, images: Tensor, taps: Sequence[str], ids_keep: Tensor | None
    ) -> dict[str, Tensor]:
        """The transformer path: patches are dropped before the first block, blocks behind the last tap do not run."""
        vit = self.network
        indices = {tap: self._index[tap] for tap in taps if '.' in tap}
        whole = len(indices) < len(taps)
        last = len(vit.blocks) - 1 if whole else max(indices.values())
        embedded = vit.patch_embed(images)
        grid = embedded.shape[1:3] if embedded.ndim == 4 else vit.patch_embed.grid_size
        tokens = vit._pos_embed(embedded)  # (B, prefix + N, D)
        prefix = vit.num_prefix_tokens
        if ids_keep is not None:
            index = ids_keep[:, :, None].expand(-1, -1, tokens.shape[-1])
            tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix:].gather(1, index)], dim=1)
        tokens = vit.norm_pre(tokens)
        out = {}
        for k, block in enumerate(vit.blocks[: last + 1]):
            tokens = block(tokens)
            for tap, index_of in indices.items():
                if index_of == k:
                    out[tap] = (
                        tokens if tap.startswith('block.') else self._as_map(tokens, prefix, grid, ids_keep)
                    )
        if whole:
            out.update(self._head(vit.norm(tokens), taps))
        return out

    def _as_map(self, tokens: Tensor, prefix: int, grid: Sequence[int], ids_keep: Tensor | None) -> Tensor:
        if ids_keep is not None:
            raise UserError(
                f'{self.name}: a "stage" tap is a full map; with visible patches only, tap "block.<k>"'
            )
        return tokens[:, prefix:].unflatten(1, tuple(grid)).permute(0, 3, 1, 2)

    def _head(self, features: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        out = {}
        if 'pooled' in taps:
            out['pooled'] = self.network.forward_head(features, pre_logits=True)
        if 'logits' in taps:
            out['logits'] = self.network.forward_head(features)
        return out
