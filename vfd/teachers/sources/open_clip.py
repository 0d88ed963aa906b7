"""The image tower of an open_clip model as teacher."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vfd.compat import require
from vfd.errors import UserError, did_you_mean
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization

from .source import SIZE_ERRORS, check_image_size, check_taps, no_classifier, not_fetched, tap_index
from .timm import as_tap, count_blocks


@MODELS.register_module()
class OpenCLIPSource:
    """The image tower of an open_clip model; with class names it also gives zero-shot logits.

    Args:
        model_name: open_clip's name, for example ``ViT-B-16``.
        taps: the taps that will be computed. ``pooled`` is the projected image embedding, not normalised;
            ``block.<k>`` exists in vision transformers, also in those of timm; ``stage.<k>`` in every tower: of a
            vision transformer the patches of ``block.<k>``, of open_clip's ResNets the stem and the four layers.
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
        if not class_names:
            no_classifier(taps, self.name, 'class_names=[...] for zero-shot logits')
        try:
            model = open_clip.create_model(model_name, pretrained=tag if pretrained else None)
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            raise not_fetched(f'{self.name}, {tag}', error) from error
        size = open_clip.get_model_preprocess_cfg(model)
        self.normalization = Normalization.from_unit(size['mean'], size['std'])
        self.num_classes = len(class_names) if class_names else None
        self.network: Any = model if class_names else nn.ModuleDict({'visual': model.visual})
        self._visual: Any = model.visual
        side = model.visual.image_size
        self.image_size = (side, side) if isinstance(side, int) else (side[0], side[1])
        self._index = self._check(taps)
        self._prompts = [prompt.format(name) for name in class_names or ()]
        self._tokenizer = open_clip.get_tokenizer(model_name) if class_names else None

    def forward_taps(
        self, images: Tensor, taps: Sequence[str], constants: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """See :class:`~vfd.teachers.sources.source.Source`."""
        try:
            out, pooled = self._run(images, taps)
        except SIZE_ERRORS as error:
            check_image_size(error, self.name, images, self.image_size, None)
            raise
        if 'pooled' in taps:
            out['pooled'] = pooled
        if 'logits' in taps:
            assert constants is not None
            cosines = F.normalize(pooled, dim=-1) @ constants['text'].to(pooled).T
            out['logits'] = self.network.logit_scale.exp() * cosines
        return out

    def constants(self) -> dict[str, Tensor]:
        """Embed the class names: ``text`` (C, D), unit vectors; nothing without class names."""
        if self._tokenizer is None:
            return {}
        tokens = self._tokenizer(self._prompts).to(self.network.logit_scale.device)
        return {'text': F.normalize(self.network.encode_text(tokens), dim=-1)}

    def _run(self, images: Tensor, taps: Sequence[str]) -> tuple[dict[str, Tensor], Any]:
        """Compute the ``block`` and ``stage`` taps and, where one needs it, the embedding, in one pass."""
        numbered = {tap: self._index[tap] for tap in taps if '.' in tap}
        to_the_end = len(numbered) < len(taps)
        if not numbered:
            pooled = self._visual(images)
            return {}, pooled[0] if isinstance(pooled, tuple) else pooled
        order = sorted(set(numbered.values()))
        if self._residual and to_the_end:  # or open_clip's ResNet leaves out what follows the last index
            order = sorted({*order, 4})
        result = self._visual.forward_intermediates(
            images, indices=order, stop_early=not to_the_end and not self._residual,
            intermediates_only=not to_the_end, output_extra_tokens=self._prefix,
        )  # fmt: skip
        maps = result['image_intermediates']
        if self._prefix:
            maps = list(zip(maps, result['image_intermediates_prefix'], strict=True))
        out = {tap: as_tap(tap, maps[order.index(k)]) for tap, k in numbered.items()}
        return out, result.get('image_features')

    def _check(self, taps: Sequence[str]) -> dict[str, int]:
        """Check all taps and return the numbers of the ``block`` and ``stage`` taps."""
        trunk = getattr(self._visual, 'trunk', None)  # a network of timm
        self._residual = trunk is None and not hasattr(self._visual, 'transformer')
        if trunk is not None:
            blocks = count_blocks(trunk, inspect.signature(trunk.forward_intermediates).parameters.keys())
            stages = len(trunk.feature_info)
            self._prefix = blocks > 0 and getattr(trunk, 'num_prefix_tokens', 0) > 0
        else:
            blocks = 0 if self._residual else len(self._visual.transformer.resblocks)
            stages = blocks or 5
            self._prefix = blocks > 0
        kinds = ['logits', 'pooled', 'stage', *(['block'] if blocks else [])]
        check_taps(taps, kinds, self.name)
        return {tap: tap_index(tap, tap.partition('.')[0], stages, self.name) for tap in taps if '.' in tap}
