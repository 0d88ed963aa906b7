"""ViTDet's simple feature pyramid: four scales from the one map of a plain vision transformer.

Paper: "Exploring Plain Vision Transformer Backbones for Object Detection", arXiv 2203.16527, section 3.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from vfd.errors import UserError
from vfd.registry import MODELS

# For the norm_cfg of mmdet's heads: dict(type='vfd.LN2d', eps=1e-6). mmcv would set an epsilon of 1e-5.
MODELS.register_module('LN2d', module=LayerNorm2d)

_EPS = 1e-6


@MODELS.register_module()
class SimpleFeaturePyramid(nn.Module):
    """Neck of a detector whose backbone is a plain transformer with patches of 16 pixels.

    The map is scaled by 4, 2, 1 and 1/2; each scale gets a 1x1 and a 3x3 convolution with layer norms. Further levels
    take every second pixel of the level before. Names of tensors are those of mmdet's ViTDet project.

    Args:
        in_channels: D, width of the backbone, divisible by 4.
        out_channels: C, channels of every level.
        num_outs: number of levels, at least 4; with 5 they are p2 to p6.

    Raises:
        UserError: ``in_channels`` is not divisible by 4, or fewer than 4 levels.
    """

    def __init__(self, in_channels: int, out_channels: int = 256, num_outs: int = 5) -> None:
        super().__init__()
        if in_channels % 4:
            raise UserError(f'SimpleFeaturePyramid: in_channels={in_channels} is not divisible by 4')
        if num_outs < 4:
            raise UserError(f'SimpleFeaturePyramid: num_outs={num_outs}; it has four scales, give 4 or more')
        half, quarter = in_channels // 2, in_channels // 4
        self.num_outs = num_outs
        self.fpn1 = nn.Sequential(
            nn.ConvTranspose2d(in_channels, half, 2, stride=2),
            LayerNorm2d(half, eps=_EPS),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        self.fpn2 = nn.Sequential(nn.ConvTranspose2d(in_channels, half, 2, stride=2))
        self.fpn3 = nn.Identity()
        self.fpn4 = nn.MaxPool2d(2)
        widths = (quarter, half, in_channels, in_channels)
        self.lateral_convs = nn.ModuleList([_conv_norm(width, out_channels, 1) for width in widths])
        self.fpn_convs = nn.ModuleList([_conv_norm(out_channels, out_channels, 3) for _ in widths])

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Build the levels.

        Args:
            inputs: of the backbone's maps the last one is read, (B, D, H, W).

        Returns:
            ``num_outs`` maps of C channels, of sizes 4H, 2H, H, H/2, H/4 ... (rounded down).
        """
        scales = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
        levels = [
            smooth(lateral(scale(inputs[-1])))
            for scale, lateral, smooth in zip(scales, self.lateral_convs, self.fpn_convs, strict=True)
        ]
        while len(levels) < self.num_outs:
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        return tuple(levels)


def _conv_norm(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Build a convolution without bias and its layer norm, under the names of mmcv's ``ConvModule``."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, ln=LayerNorm2d(out_channels, eps=_EPS)))
