"""The image tower of an open_clip model as teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfd.compat import require
from vfd.errors import UserError, did_you_mean
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization

from .source import check_taps, not_fetched, tap_index


@MODELS.register_module()
class OpenCLIPSource:
    """The image tower of an open_clip model; with class names it also gives zero-shot logits.

    Args:
        model_name: open_clip's name, for example ``ViT-B-16``.
        taps: the taps that will be asked for. ``pooled`` is the projected image embedding, not normalised.
        pretrained: False, or open_clip's tag of published weights (:class:`~vfd.teachers.Teacher` sets it from
            ``tag``).
        tag: the tag that ``checkpoint='pretrained'`` loads, for example ``laion2b_s34b_b88k``.
        class_names: names of the classes for ``logits``, which are ``exp(logit_scale) * cos(image, text)``.
        prompt: the sentence around a class name.
    """

    reads: frozenset[str] = frozenset()

    def __init__(
        self,
        model_name: str,
        taps: Sequence[str] = ('pooled',),
        pretrained: bool = False,
        tag: str | None = None,
        class_names: Sequence[str] | None = None,
        prompt: str = 'a photo of a {}.',
    ) -> None:
        require('open_clip')
        import open_clip

        self.name = f'open_clip:{model_name}'
        if model_name not in open_clip.list_models():
            hint = did_you_mean(model_name, open_clip.list_models())
            raise UserError(f'open_clip has no model "{model_name}"{hint}')
        if pretrained and not tag:
            tags = ', '.join(open_clip.list_pretrained_tags_by_model(model_name)) or 'none'
            raise UserError(f'{self.name}: name the published weights with tag=...; known: {tags}')
        if 'logits' in taps and not class_names:
            raise UserError(f'{self.name}: the tap "logits" needs class_names=[...]')
        try:
            model = open_clip.create_model(model_name, pretrained=tag if pretrained else None)
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            raise not_fetched(f'{self.name}, {tag}', error) from error
        check_taps(taps, ('logits', 'pooled', 'block'), self.name)
        size = open_clip.get_model_preprocess_cfg(model)
        self.normalization = Normalization.from_unit(size['mean'], size['std'])
        self.num_classes = len(class_names) if class_names else None
        self.network: Any = model if class_names else nn.ModuleDict({'visual': model.visual})
        self._visual: Any = model.visual
        self._prompts = [prompt.format(name) for name in class_names or ()]
        self._tokenizer = open_clip.get_tokenizer(model_name) if class_names else None

    def forward_taps(
        self, images: Tensor, taps: Sequence[str], constants: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """See :class:`~vfd.teachers.sources.source.Source`."""
        out = {}
        blocks = [tap for tap in taps if tap.startswith('block.')]
        if blocks:
            count = len(self._visual.transformer.resblocks)
            index = {tap: tap_index(tap, 'block', count, self.name) for tap in blocks}
            order = sorted(set(index.values()))
            result = self._visual.forward_intermediates(
                images, indices=order, stop_early=True, intermediates_only=True, output_fmt='NLC',
                output_extra_tokens=True,
            )  # fmt: skip
            maps = [
                torch.cat([extra, tokens], dim=1)
                for extra, tokens in zip(
                    result['image_intermediates_prefix'], result['image_intermediates'], strict=True
                )
            ]
            out = {tap: maps[order.index(k)] for tap, k in index.items()}
        if 'pooled' in taps or 'logits' in taps:
            pooled = self._visual(images)
            pooled = pooled[0] if isinstance(pooled, tuple) else pooled
            if 'pooled' in taps:
                out['pooled'] = pooled
            if 'logits' in taps:
                assert constants is not None
                scale = self.network.logit_scale.exp()
                out['logits'] = scale * F.normalize(pooled, dim=-1) @ constants['text'].to(pooled).T
        return out

    def constants(self) -> dict[str, Tensor]:
        """Embed the class names: ``text`` (C, D), unit vectors; nothing without class names."""
        if self._tokenizer is None:
            return {}
        tokens = self._tokenizer(self._prompts).to(self.network.logit_scale.device)
        return {'text': F.normalize(self.network.encode_text(tokens), dim=-1)}
