"""A model of mmpretrain, or a backbone of any OpenMMLab package, as teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.teachers.normalization import Normalization

from .source import check_taps, tap_index


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
        self._backbone = getattr(self.network, 'backbone', self.network)
        kinds = ['stage']
        if hasattr(self.network, 'extract_feat'):
            kinds += ['pooled']
            kinds += ['logits'] if getattr(self.network, 'with_head', hasattr(self.network, 'model')) else []
        check_taps(taps, kinds, self.name)
        self.normalization: Normalization | None
        if mean is not None and std is not None:
            self.normalization = Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
        elif hasattr(self.network, 'data_preprocessor'):
            self.normalization = Normalization.of_preprocessor(self.network.data_preprocessor)
        else:
            raise UserError(f'{self.name}: a bare backbone needs mean=[...] and std=[...] (RGB, 0..255)')
        head = getattr(self.network, 'head', None)
        self.num_classes = getattr(head, 'num_classes', None)

    def forward_taps(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`~vfd.teachers.sources.source.Source`."""
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
