"""A linear depth probe: how much metric depth one linear layer reads from frozen features.

In a config::

    model = dict(
        type='vfd.DepthProbe',
        backbone=dict(type='vfd.RegisterViT', model_name='vit_base_patch14_dinov2', checkpoint='epoch_30.pth'),
        in_channels=768,
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor', size_divisor=14, seg_pad_val=0, ...))
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel, normal_init
from mmengine.structures import PixelData
from torch import Tensor, nn

from vfd.errors import UserError
from vfd.evaluation.frozen import FrozenBackbone
from vfd.losses.depth import GradientLoss, SigLoss
from vfd.registry import MODELS

NormStrategy = Literal['linear', 'softmax', 'sigmoid']


def depth_from_bins(logits: Tensor, bins: Tensor, norm_strategy: NormStrategy = 'linear') -> Tensor:
    """Compute the expected depth of scores over depth bins.

    Args:
        logits: (B, N, H, W).
        bins: (N,) depths in metres.
        norm_strategy: how scores become weights: ``linear`` takes ``relu(z) + 0.1`` over its sum, ``softmax``, or
            ``sigmoid`` over its sum.

    Returns:
        (B, 1, H, W) metres.
    """
    if norm_strategy == 'softmax':
        weights = logits.softmax(1)
    else:
        positive = logits.relu() + 0.1 if norm_strategy == 'linear' else logits.sigmoid()
        weights = positive / positive.sum(1, keepdim=True)
    return torch.einsum('bnhw,n->bhw', weights, bins)[:, None]


@MODELS.register_module()
class DepthProbe(BaseModel):
    """One 1x1 convolution from frozen features to depth bins.

    The class token is repeated at every patch and stacked on the map, both are enlarged, and the convolution scores
    the bins, whose expectation is the depth.

    Args:
        backbone: config of a :class:`vfd.RegisterViT` or :class:`vfd.RegisterCLIP`; it is frozen
            (:class:`vfd.FrozenBackbone`).
        in_channels: channels D of the backbone's map.
        num_bins: depth bins, evenly spaced from ``min_depth`` to ``max_depth``.
        min_depth: in metres.
        max_depth: in metres; deeper pixels do not count in the losses.
        norm_strategy: see :func:`depth_from_bins`.
        upsample: how much the features are enlarged before the convolution.
        warm_up_iters: see :class:`~vfd.losses.depth.SigLoss`.
        gradient_weight: weight of :class:`~vfd.losses.depth.GradientLoss` beside the scale-invariant loss.
        legacy_bchw: see :class:`~vfd.losses.depth.GradientLoss`: what the published probes were trained with.
        data_preprocessor: config of mmseg's ``SegDataPreProcessor``. With ``size_divisor`` images are padded to whole
            patches; the padding is cut off the prediction [ours].
        init_cfg: mmengine's initialisation config.

    Raises:
        UserError: an unknown ``norm_strategy``, or a range of depths that is none.
    """

    def __init__(
        self,
        backbone: dict,
        in_channels: int,
        num_bins: int = 256,
        min_depth: float = 1e-3,
        max_depth: float = 10.0,
        norm_strategy: NormStrategy = 'linear',
        upsample: int = 4,
        warm_up_iters: int = 100,
        gradient_weight: float = 0.5,
        legacy_bchw: bool = False,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if norm_strategy not in ('linear', 'softmax', 'sigmoid'):
            raise UserError(
                f'DepthProbe norm_strategy="{norm_strategy}": use "linear", "softmax" or "sigmoid"'
            )
        if not 0 < min_depth < max_depth:
            raise UserError(
                f'DepthProbe: depths from {min_depth} to {max_depth} m: 0 < min_depth < max_depth'
            )
        self.backbone = FrozenBackbone.around(backbone)
        self.norm_strategy, self.upsample = norm_strategy, upsample
        self.conv_depth = nn.Conv2d(2 * in_channels, num_bins, 1)
        self.bins: Tensor
        self.register_buffer('bins', torch.linspace(min_depth, max_depth, num_bins), persistent=False)
        self.sig_loss = SigLoss(max_depth, warm_up_iters)
        self.gradient_loss = GradientLoss(max_depth, gradient_weight, legacy_bchw)

    def init_weights(self) -> None:
        """Start the convolution from N(0, 0.01) and a bias of 0, as mmseg's heads do [ours]."""
        super().init_weights()
        normal_init(self.conv_depth, std=0.01)

    def decode(self, features: Tensor, cls_token: Tensor) -> Tensor:
        """Compute depth from frozen features.

        Args:
            features: (B, D, h, w).
            cls_token: (B, D).

        Returns:
            (B, 1, upsample h, upsample w) metres.
        """
        stacked = torch.cat([features, cls_token[:, :, None, None].expand_as(features)], dim=1)
        if 2 * features.shape[1] != self.conv_depth.in_channels:
            raise UserError(
                f'DepthProbe: the backbone gives {features.shape[1]} channels, in_channels='
                f'{self.conv_depth.in_channels // 2}'
            )
        enlarged = F.interpolate(stacked, scale_factor=self.upsample, mode='bilinear', align_corners=False)
        return depth_from_bins(self.conv_depth(enlarged), self.bins, self.norm_strategy)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor') -> Any:
        """Run one batch in a mode of mmseg's models.

        Args:
            inputs: (B, 3, H, W), preprocessed.
            data_samples: B of mmseg's samples with ``gt_depth_map`` (1, H, W) in metres, 0 where there is none.
            mode: ``tensor`` gives depths (B, 1, h, w); ``loss`` gives ``loss_sig`` and ``loss_gradient``; ``predict``
                the samples with ``pred_depth_map`` (1, H', W'), in the size of the original image.
        """
        depth = self.decode(*self.backbone.forward_with_cls(inputs))
        if mode == 'tensor':
            return depth
        assert data_samples is not None and mode in ('loss', 'predict'), mode
        size = tuple(inputs.shape[-2:])
        depth = F.interpolate(depth.float(), size, mode='bilinear', align_corners=False)
        if mode == 'loss':
            target = torch.stack([sample.gt_depth_map.data for sample in data_samples]).to(depth)
            return {
                'loss_sig': self.sig_loss(depth, target),
                'loss_gradient': self.gradient_loss(depth, target),
            }
        for map_, sample in zip(depth, data_samples, strict=True):
            sample.pred_depth_map = PixelData(data=_original_size(map_, sample.metainfo))
        return data_samples


def _original_size(depth: Tensor, meta: dict) -> Tensor:
    """Cut the padding off a map (1, H, W) and resize it to the original image."""
    _, right, _, bottom = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
    depth = depth[:, : depth.shape[1] - bottom, : depth.shape[2] - right]
    size = tuple(meta['ori_shape'])
    if depth.shape[1:] == size:
        return depth
    return F.interpolate(depth[None], size, mode='bilinear', align_corners=False)[0]
