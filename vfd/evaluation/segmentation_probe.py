"""A linear segmentation probe: batch norm and one linear layer on the last map of a frozen backbone.

In a config::

    model = dict(
        type='vfd.SegmentationProbe',
        backbone=dict(type='vfd.RegisterViT', model_name='vit_base_patch14_dinov2', checkpoint='epoch_30.pth'),
        decode_head=dict(type='vfd.LinearSegHead', in_channels=768, num_classes=150),
        test_cfg=dict(mode='slide', crop_size=(518, 518), stride=(341, 341)),
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor', ...))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmengine.config import ConfigDict
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from vfd.errors import UserError
from vfd.registry import MODELS


@MODELS.register_module()
class SegmentationProbe(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` whose backbone is frozen (:class:`vfd.FrozenBackbone`): only the head trains.

    Args:
        backbone: config of a network that gives maps (B, D, h, w), one or a tuple.
        decode_head: config of a head, :class:`vfd.LinearSegHead`.
        test_cfg: mmseg's: whole images or sliding windows.
        data_preprocessor: config of mmseg's ``SegDataPreProcessor``.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        test_cfg: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            backbone=ConfigDict(type='vfd.FrozenBackbone', backbone=backbone),
            decode_head=decode_head,
            test_cfg=ConfigDict(test_cfg or {'mode': 'whole'}),  # mmseg reads it as attributes
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )


@MODELS.register_module()
class LinearSegHead(BaseDecodeHead):
    """Batch norm over the D channels of the last map, then a 1x1 convolution to the classes.

    The loss is mmseg's cross-entropy; as published it is averaged over all pixels, those without label included
    (``avg_non_ignore=False``, mmseg's default): a batch without any label costs 0.

    Args:
        in_channels: D.
        num_classes: C.
        norm_cfg: kind of batch norm; ``SyncBN`` computes its statistics over all processes, and is ordinary batch norm
            in one.
        kwargs: the other settings of mmseg's ``BaseDecodeHead`` (``loss_decode``, ``ignore_index``, ...).

    Raises:
        UserError: at the first image, when the map has another number of channels.
    """

    def __init__(
        self, in_channels: int, num_classes: int, norm_cfg: dict | None = None, **kwargs: Any
    ) -> None:
        norm_cfg = norm_cfg or {'type': 'SyncBN'}
        settings = {'channels': in_channels, 'dropout_ratio': 0, **kwargs}
        super().__init__(in_channels=in_channels, num_classes=num_classes, norm_cfg=norm_cfg, **settings)
        self.bn = build_norm_layer(norm_cfg, in_channels)[1]

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Compute class scores (B, C, h, w) from the maps of a backbone, the last of them (B, D, h, w)."""
        features = self._transform_inputs(inputs)
        if features.shape[1] != self.in_channels:
            raise UserError(
                f'LinearSegHead in_channels={self.in_channels}: the last map of the backbone has {features.shape[1]} '
                'channels'
            )
        return self.cls_seg(self.bn(features))
