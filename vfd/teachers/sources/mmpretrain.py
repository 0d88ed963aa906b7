"""A model of mmpretrain, or a backbone of any OpenMMLab package, as teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization

from .source import (
    BACKBONE_SIZE,
    SIZE_ERRORS,
    backbone_size,
    check_image_size,
    check_taps,
    no_classifier,
    tap_index,
)


@MODELS.register_module()
class MMSource:
    """A model of mmpretrain, mmdet or mmseg, or one of their backbones.

    Args:
        model: its config, for example ``dict(type='mmpretrain.ImageClassifier', backbone=..., head=...)``.
        taps: ``logits`` and ``pooled`` for classifiers (``pooled`` is their head's ``pre_logits``), ``stage.<k>`` = the
            k-th output of the backbone.
        pretrained: refused: OpenMMLab weights are files, give them as the teacher's checkpoint.
        mean: channel means of a bare backbone, which has no data preprocessor, in 0..255 RGB.
        std: channel standard deviations of a bare backbone.
    """

    reads: frozenset[str] = frozenset()

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
        wrapped = None if hasattr(self.network, 'backbone') else getattr(self.network, 'model', None)
        self._backbone: Any = None if wrapped is not None else getattr(self.network, 'backbone', self.network)
        self._timm: Any = wrapped if hasattr(wrapped, 'forward_head') else None  # TimmClassifier
        self._head: Any = getattr(self.network, 'head', None)
        self.image_size = backbone_size(self._backbone)
        kinds = []
        if self._timm is not None or hasattr(self._head, 'pre_logits') or self._ends_with_neck():
            kinds.append('pooled')
        if self._classifies(wrapped):
            kinds.append('logits')
        elif kinds:
            no_classifier(taps, self.name, None)
        kinds += ['stage'] if self._backbone is not None else []
        check_taps(taps, kinds, self.name)
        self.normalization: Normalization | None
        if mean is not None and std is not None:
            self.normalization = Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
        elif hasattr(self.network, 'data_preprocessor'):
            self.normalization = Normalization.of_preprocessor(self.network.data_preprocessor)
        else:
            raise UserError(f'{self.name}: a bare backbone needs mean=[...] and std=[...] (RGB, 0..255)')

    def forward_taps(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`~vfd.teachers.sources.source.Source`."""
        try:
            return self._parts(images, taps) if self._backbone is not None else self._wrapped(images, taps)
        except SIZE_ERRORS as error:
            check_image_size(error, self.name, images, self.image_size, BACKBONE_SIZE)
            raise

    def _parts(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """Run backbone, neck and head in order, each once and only where a tap is behind it."""
        stages = [tap for tap in taps if tap.startswith('stage.')]
        out = {}
        if stages:
            maps = self._backbone(images)
            out = {tap: maps[tap_index(tap, 'stage', len(maps), self.name)] for tap in stages}
            if len(out) == len(taps):
                return out
            features = self.network.neck(maps) if self.network.with_neck else maps
        else:
            features = self.network.extract_feat(images)
        if 'pooled' in taps:
            pooled = self._head.pre_logits(features) if self._head is not None else features
            out['pooled'] = pooled[-1] if isinstance(pooled, (tuple, list)) else pooled
        if 'logits' in taps:
            out['logits'] = self._head(features)
        return out

    def _wrapped(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """Run a classifier of mmpretrain around a network of timm or transformers."""
        if self._timm is None or 'pooled' not in taps:
            return {'logits': self.network(images, mode='tensor')}
        features = self._timm.forward_features(images)
        out = {'pooled': self._timm.forward_head(features, pre_logits=True)}
        return {**out, 'logits': self._timm.forward_head(features)} if 'logits' in taps else out

    def _ends_with_neck(self) -> bool:
        """Return whether this is a classifier of mmpretrain without a head."""
        return self._head is None and hasattr(self.network, 'with_head') and self.network.with_neck

    def _classifies(self, wrapped: Any) -> bool:
        """Set ``num_classes`` and return whether there is a classifier."""
        self.num_classes: int | None = getattr(self._head, 'num_classes', None)
        if self._timm is not None:
            self.num_classes = self._timm.num_classes or None
            return self.num_classes is not None
        if wrapped is not None:  # HuggingFaceClassifier
            self.num_classes = wrapped.config.num_labels
            return True
        return getattr(self.network, 'with_head', False) and any(True for _ in self._head.parameters())
