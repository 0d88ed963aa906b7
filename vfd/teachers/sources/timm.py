"""A network of timm as teacher, through timm's public protocol.

Everything goes through ``forward_features``, ``forward_intermediates``, ``forward_head``,
``prune_intermediate_layers`` and ``reset_classifier``. Only to gather visible patches before the blocks
(``ids_keep``), for which timm has no call, the parts of its plain and rotary vision transformers are used one by one.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence, Set
from typing import Any

import torch
from torch import Tensor

from vfd.errors import UserError, did_you_mean
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization

from .source import SIZE_ERRORS, check_image_size, check_taps, no_classifier, not_fetched, tap_index


@MODELS.register_module()
class TimmSource:
    """A timm network.

    Layers behind the last tap are cut off when only ``block`` and ``stage`` taps are computed, the classifier when
    no logits are computed; a checkpoint need not have them.

    Args:
        model_name: timm's name, ``name`` or ``name.tag``.
        taps: the taps that will be computed.
        pretrained: take timm's published weights (downloaded by timm). :class:`~vfd.teachers.Teacher` sets it.
        kwargs: passed to ``timm.create_model`` (``num_classes``, ``img_size``, ...).

    Raises:
        UserError: an unknown model, tag, argument or tap, or published weights without the classes that are needed.
    """

    def __init__(
        self, model_name: str, taps: Sequence[str] = ('logits',), pretrained: bool = False, **kwargs: Any
    ) -> None:
        self.name = f'timm:{model_name}'
        if pretrained:
            _check_published_classes(model_name, taps, kwargs)
        network = _create(model_name, pretrained, kwargs)
        self.network: Any = network
        cfg = network.pretrained_cfg
        self.normalization = Normalization.from_unit(cfg['mean'], cfg['std'])
        self.num_classes: int | None = network.num_classes
        self._resizable = bool(cfg.get('fixed_input_size')) or 'img_size' in kwargs
        built_for = getattr(getattr(network, 'patch_embed', None), 'img_size', None)
        self.image_size: tuple[int, int] = _pair(kwargs.get('img_size') or built_for or cfg['input_size'][1:])
        self._parameters = frozenset(
            inspect.signature(network.forward_intermediates).parameters
            if hasattr(network, 'forward_intermediates')
            else ()
        )
        self._blocks = count_blocks(network, self._parameters)
        gathers = all(hasattr(network, part) for part in ('_pos_embed', 'norm_pre', 'blocks'))
        self.reads = frozenset({'ids_keep'} if gathers else ())
        if not self.num_classes:
            no_classifier(taps, self.name, 'num_classes= and a checkpoint with that classifier')
        kinds = ['logits'] if self.num_classes else []
        kinds += ['pooled'] if 'pre_logits' in inspect.signature(network.forward_head).parameters else []
        kinds += ['stage'] if self._parameters else []
        kinds += ['block'] if self._blocks else []
        check_taps(taps, kinds, self.name)
        # before the cut: numbers from the end mean those of the whole network
        self._index = {tap: self._number(tap) for tap in taps if '.' in tap}
        self._channels = {tap: self._width(tap) for tap in taps}
        self._cut(taps)

    @property
    def num_patches(self) -> int | None:
        """The number of patches of an image of the network's size; None where patches cannot be dropped."""
        return self.network.patch_embed.num_patches if self.reads else None

    def channels(self, tap: str) -> int:
        """Return the channels of the features at a tap."""
        return self._channels[tap]

    def block_index(self, tap: str) -> int:
        """Return the block of a tap, counted from 0."""
        return self._index[tap]

    def forward_taps(
        self, images: Tensor, taps: Sequence[str], ids_keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """See :class:`~vfd.teachers.sources.source.Source`."""
        try:
            if ids_keep is not None:
                return self._visible(images, taps, ids_keep)
            return self._whole(images, taps)
        except SIZE_ERRORS as error:
            option = 'img_size=[{0}, {1}] in its source' if self._resizable else None
            check_image_size(error, self.name, images, self.image_size, option)
            raise

    def _whole(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """Run on all patches; layers behind the last tap do not run where timm can stop early."""
        numbered = {tap: self._index[tap] for tap in taps if '.' in tap}
        to_the_end = len(numbered) < len(taps)
        if not numbered:
            return self._head(self.network.forward_features(images), taps)
        options: dict[str, Any] = {}
        if any(tap.startswith('block.') for tap in numbered):
            if 'return_prefix_tokens' in self._parameters and self.network.num_prefix_tokens:
                options['return_prefix_tokens'] = True
            if 'coarse' in self._parameters:  # Hiera: every block, where a stage is the block at its end
                options['coarse'] = False
                ends = self.network.stage_ends
                numbered = {tap: ends[k] if tap.startswith('stage.') else k for tap, k in numbered.items()}
        order = sorted(set(numbered.values()))
        result = self.network.forward_intermediates(
            images, indices=order, stop_early=not to_the_end, intermediates_only=not to_the_end, **options
        )
        maps = result[1] if to_the_end else result
        out = {tap: as_tap(tap, maps[order.index(k)]) for tap, k in numbered.items()}
        return {**out, **self._head(result[0], taps)} if to_the_end else out

    def _visible(self, images: Tensor, taps: Sequence[str], ids_keep: Tensor) -> dict[str, Tensor]:
        """Gather the visible patches and their rotary embedding before the first block."""
        if any(tap.startswith('stage.') for tap in taps):
            raise UserError(
                f'{self.name}: a "stage" tap is a full map; with visible patches only, tap "block.<k>"'
            )
        vit = self.network
        blocks = {tap: self._index[tap] for tap in taps if '.' in tap}
        to_the_end = len(blocks) < len(taps)
        last = len(vit.blocks) - 1 if to_the_end else max(blocks.values())
        embedded = vit._pos_embed(vit.patch_embed(images))
        tokens, rotary = embedded if isinstance(embedded, tuple) else (embedded, None)
        prefix = vit.num_prefix_tokens
        index = ids_keep[:, :, None].expand(-1, -1, tokens.shape[-1])
        tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix:].gather(1, index)], dim=1)
        tokens = vit.norm_pre(tokens)
        rotaries = None if rotary is None else self._visible_rotary(rotary, tokens, ids_keep)
        out = {}
        for k, block in enumerate(vit.blocks[: last + 1]):
            tokens = block(tokens) if rotaries is None else block(tokens, rope=rotaries[k])
            out.update({tap: tokens for tap, index in blocks.items() if index == k})
        return {**out, **self._head(vit.norm(tokens), taps)} if to_the_end else out

    def _visible_rotary(self, rotary: Tensor, tokens: Tensor, ids_keep: Tensor) -> Sequence[Tensor]:
        """Return the rotary embedding of the visible patches for every block, (B, heads or 1, K, 2 * head_dim)."""
        from timm.layers import apply_keep_indices_nlc

        kept = apply_keep_indices_nlc(tokens, rotary, ids_keep)
        if self.network.rope_mixed:  # (B, depth, heads, K, ...): every block has its own
            return kept.unbind(1)
        return [kept.unsqueeze(1)] * len(self.network.blocks)

    def _head(self, features: Any, taps: Sequence[str]) -> dict[str, Tensor]:
        out = {}
        try:
            if 'pooled' in taps:
                out['pooled'] = self.network.forward_head(features, pre_logits=True)
        except NotImplementedError:
            raise UserError(f'{self.name} has no pooled feature in timm; tap "stage.-1" instead') from None
        if 'logits' in taps:
            out['logits'] = self.network.forward_head(features)
        return out

    def _cut(self, taps: Sequence[str]) -> None:
        """Remove the layers that no tap needs."""
        if 'logits' in taps:
            return
        if 'pooled' not in taps and hasattr(self.network, 'prune_intermediate_layers'):
            kinds = {tap.partition('.')[0] for tap in taps}
            ends = self.network.stage_ends if 'coarse' in self._parameters and 'block' in kinds else None
            last = max(ends[k] if ends and tap.startswith('stage.') else k for tap, k in self._index.items())
            options = {'coarse': False} if ends else {}
            self.network.prune_intermediate_layers([last], prune_norm=True, prune_head=True, **options)
        elif hasattr(self.network, 'reset_classifier'):
            self.network.reset_classifier(0)
        self.num_classes = None

    def _number(self, tap: str) -> int:
        kind = tap.partition('.')[0]
        count = self._blocks if kind == 'block' else len(self.network.feature_info)
        return tap_index(tap, kind, count, self.name)

    def _width(self, tap: str) -> int:
        if tap == 'logits':
            return self.network.num_classes
        if tap == 'pooled':
            return getattr(self.network, 'head_hidden_size', self.network.num_features)
        if tap.startswith('block.') and 'coarse' in self._parameters:
            return self.network.blocks[self._index[tap]].dim_out
        return self.network.feature_info[self._index[tap]]['num_chs']


def as_tap(tap: str, output: Any) -> Tensor:
    """Convert an intermediate output of timm, (B, C, H, W) or that and its (B, prefix, C), to a map or tokens."""
    feature_map, *prefix = output if isinstance(output, tuple) else (output,)
    if tap.startswith('stage.'):
        return feature_map
    return torch.cat([*prefix, feature_map.flatten(2).transpose(1, 2)], dim=1)


def count_blocks(network: Any, parameters: Set[str]) -> int:
    """Return the number of ``block`` taps where timm gives the tokens after every block, else 0.

    Args:
        network: from ``timm.create_model``.
        parameters: the names of the arguments of its ``forward_intermediates``.
    """
    if 'coarse' in parameters:
        return len(network.blocks)
    if 'return_prefix_tokens' in parameters:
        return len(network.feature_info)
    # Tokens without a class token among them: CaiT and XCiT add theirs behind the blocks. ConViT's joins in the middle,
    # and timm does not give it.
    if not isinstance(getattr(network, 'embed_dim', None), int) or hasattr(network, 'local_up_to_layer'):
        return 0
    modules = [info['module'] for info in network.feature_info]
    return len(modules) if all(name.endswith(f'blocks.{k}') for k, name in enumerate(modules)) else 0


def _check_published_classes(model_name: str, taps: Sequence[str], kwargs: dict[str, Any]) -> None:
    """Raise where published weights lack the classes that are needed, before they are downloaded."""
    from timm.models import get_pretrained_cfg

    try:
        cfg = get_pretrained_cfg(model_name)
    except RuntimeError:
        return  # timm's own message is raised where the network is built
    if cfg is None or 'logits' not in taps:
        return
    published = (kwargs.get('pretrained_cfg_overlay') or {}).get('num_classes', cfg.num_classes)
    if not published:
        no_classifier(taps, f'timm:{model_name}', None)
    if kwargs.get('num_classes', published) != published:
        raise UserError(
            f'teacher {model_name}: the published weights have {published} classes, num_classes='
            f'{kwargs["num_classes"]} would leave the classifier random. Give a checkpoint fine-tuned on '
            'your classes, or tap "pooled".'
        )


def _create(model_name: str, pretrained: bool, kwargs: dict[str, Any]) -> Any:
    """Build the network; turn timm's errors for a wrong name, tag or argument into a ``UserError``."""
    import timm

    try:
        return timm.create_model(model_name, pretrained=pretrained, **kwargs)
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
        raise not_fetched(f'timm:{model_name}', error) from error


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
