"""Where a teacher's network comes from: timm, open_clip, or a model of an OpenMMLab package.

A source knows four things of its network: how to build it with no more than the taps need, the normalisation it was
trained on, its number of classes, and how to answer at the taps.

====================  =======================  ==========================================================
tap                   shape                    what it is
====================  =======================  ==========================================================
``logits``            (B, C)                   class scores before the softmax
``pooled``            (B, D)                   the feature that the classifier reads
``block.<k>``         (B, prefix + N, D)       tokens after transformer block k, before the final norm
``stage.<k>``         (B, C, H, W)             feature map k of a network (timm's and OpenMMLab's numbering)
====================  =======================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vfd.compat import require
from vfd.errors import UserError, did_you_mean
from vfd.registry import MODELS

from .normalization import Normalization


class Source(Protocol):
    """What :class:`vfd.teachers.Teacher` asks of a network's origin."""

    name: str
    network: Any  # nn.Module; its methods are those of its library
    normalization: Normalization
    num_classes: int | None

    def answer(self, images: Tensor, taps: Sequence[str], keep: Tensor | None) -> dict[str, Tensor]:
        """The network's answers at the taps.

        Args:
            images: (B, 3, H, W), normalised as :attr:`normalization` says.
            taps: names of the table above.
            keep: (B, K) indices of the patches to look at; None looks at all.
        """
        ...


def tap_index(tap: str, kind: str, count: int, name: str) -> int:
    """The number behind ``block.<k>`` or ``stage.<k>``; negative numbers count from the end."""
    try:
        index = int(tap.partition('.')[2])
    except ValueError:
        raise UserError(
            f'teacher tap "{tap}": write {kind}.<number>, for example {kind}.{count - 1}'
        ) from None
    if not -count <= index < count:
        raise UserError(f'teacher tap "{tap}": {name} has {kind}.0 to {kind}.{count - 1}')
    return index % count


def check_taps(taps: Sequence[str], kinds: Sequence[str], name: str) -> None:
    """Raise for a tap that this network does not have."""
    for tap in taps:
        kind = tap.partition('.')[0]
        if kind not in kinds:
            known = [k + '.<k>' if k in ('block', 'stage') else k for k in kinds]
            raise UserError(
                f'teacher tap "{tap}": {name} answers at {", ".join(known)}{did_you_mean(kind, kinds)}'
            )


def not_fetched(name: str, error: Exception) -> UserError:
    """The error of a library that could not get its published weights, as the user can mend it."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UserError(
        f'the published weights of {name} could not be fetched ({reason}). Check the connection, or give a weight '
        'file as checkpoint=...'
    )


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

    def widths(self, tap: str) -> int:
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

    def answer(self, images: Tensor, taps: Sequence[str], keep: Tensor | None) -> dict[str, Tensor]:
        """See :class:`Source`."""
        if self._transformer:
            return self._answer_tokens(images, taps, keep)
        if keep is not None:
            raise UserError(f'{self.name} has no patch tokens: it cannot look at a subset of patches')
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

    def _answer_tokens(self, images: Tensor, taps: Sequence[str], keep: Tensor | None) -> dict[str, Tensor]:
        """The transformer path: patches are dropped before the first block, blocks behind the last tap do not run."""
        vit = self.network
        indices = {tap: self._index[tap] for tap in taps if '.' in tap}
        whole = len(indices) < len(taps)
        last = len(vit.blocks) - 1 if whole else max(indices.values())
        embedded = vit.patch_embed(images)
        grid = embedded.shape[1:3] if embedded.ndim == 4 else vit.patch_embed.grid_size
        tokens = vit._pos_embed(embedded)  # (B, prefix + N, D)
        prefix = vit.num_prefix_tokens
        if keep is not None:
            index = keep[:, :, None].expand(-1, -1, tokens.shape[-1])
            tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix:].gather(1, index)], dim=1)
        tokens = vit.norm_pre(tokens)
        out = {}
        for k, block in enumerate(vit.blocks[: last + 1]):
            tokens = block(tokens)
            for tap, index_of in indices.items():
                if index_of == k:
                    out[tap] = (
                        tokens if tap.startswith('block.') else self._as_map(tokens, prefix, grid, keep)
                    )
        if whole:
            out.update(self._head(vit.norm(tokens), taps))
        return out

    def _as_map(self, tokens: Tensor, prefix: int, grid: Sequence[int], keep: Tensor | None) -> Tensor:
        if keep is not None:
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
        self._text: Tensor | None = None

    def answer(self, images: Tensor, taps: Sequence[str], keep: Tensor | None) -> dict[str, Tensor]:
        """See :class:`Source`."""
        if keep is not None:
            raise UserError(f'{self.name} cannot look at a subset of patches')
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
                out['logits'] = (
                    self.network.logit_scale.exp() * F.normalize(pooled, dim=-1) @ self._texts(pooled).T
                )
        return out

    def _texts(self, like: Tensor) -> Tensor:
        """Unit text embeddings of the class names, (C, D): computed at the first use, after the weights are in."""
        if self._text is None:
            assert self._tokenizer is not None
            tokens = self._tokenizer(self._prompts).to(like.device)
            self._text = F.normalize(self.network.encode_text(tokens), dim=-1)
        return self._text.to(like)


@MODELS.register_module()
class MMSource:
    """A model of mmpretrain, mmdet or mmseg, or one of their backbones.

    Args:
        model: its config, for example ``dict(type='mmpretrain.ImageClassifier', backbone=..., head=...)``.
        taps: ``logits`` and ``pooled`` for classifiers, ``stage.<k>`` = the k-th output of the backbone.
        pretrained: refused: OpenMMLab weights are files, give them as the teacher's checkpoint.
        mean: channel means of a bare backbone, which has no data preprocessor, in 0..255 RGB.
        std: channel standard deviations of a bare backbone.
    """

    def __init__(
        self,
        model: dict,
        taps: Sequence[str] = ('logits',),
        pretrained: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.name = f'mm:{model.get("type")}'
        if pretrained:
            raise UserError(f'{self.name}: give the weight file as checkpoint=..., not "pretrained"')
        self.network: Any = MODELS.build(model)
        self._backbone = getattr(self.network, 'backbone', self.network)
        kinds = ['stage']
        if hasattr(self.network, 'extract_feat'):
            kinds += ['pooled']
            kinds += ['logits'] if getattr(self.network, 'with_head', hasattr(self.network, 'model')) else []
        check_taps(taps, kinds, self.name)
        if mean is not None and std is not None:
            self.normalization = Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
        elif hasattr(self.network, 'data_preprocessor'):
            self.normalization = Normalization.of_preprocessor(self.network.data_preprocessor)
        else:
            raise UserError(f'{self.name}: a bare backbone needs mean=[...] and std=[...] (RGB, 0..255)')
        head = getattr(self.network, 'head', None)
        self.num_classes = getattr(head, 'num_classes', None)

    def answer(self, images: Tensor, taps: Sequence[str], keep: Tensor | None) -> dict[str, Tensor]:
        """See :class:`Source`."""
        if keep is not None:
            raise UserError(f'{self.name} cannot look at a subset of patches')
        out = {}
        stages = [tap for tap in taps if tap.startswith('stage.')]
        if stages:
            maps = self._backbone(images)
            out = {tap: maps[tap_index(tap, 'stage', len(maps), self.name)] for tap in stages}
        if 'pooled' in taps:
            features = self.network.extract_feat(images)
            out['pooled'] = features[-1] if isinstance(features, (tuple, list)) else features
        if 'logits' in taps:
            out['logits'] = self.network(images, mode='tensor')
        return out
