"""Networks written as Zen-NAS structures, see :mod:`vfd.backbones.plainnet_grammar`.

timm.create_model('plainnet', structure='SuperConvK3BNRELU(3,64,1,1)SuperResK3K3(64,128,2,64,2)', num_classes=100)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vfd.backbones.plainnet_grammar import Block, parse_structure
from vfd.backbones.timm_protocol import ClassifierNetwork, network_cfg, register_model, without_timms_own
from vfd.errors import UserError

__all__ = ['PlainNet']


class Residual(nn.Module):
    """Convolutions with batch norm, a shortcut, ReLU."""

    def __init__(self, block: Block, unit: int) -> None:
        super().__init__()
        convolutions = block.convolutions(unit)
        parts: list[nn.Module] = []
        for before, after, kernel, stride in convolutions:
            parts += [
                nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(after),
            ]
            parts += [nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*parts[:-1])
        self.projection: nn.Module = nn.Identity()
        if block.has_projection(unit):
            self.projection = nn.Sequential(
                nn.Conv2d(block.in_channels, block.out_channels, 1, block.stride),
                nn.BatchNorm2d(block.out_channels),
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same or, with a stride, to smaller maps."""
        return self.relu(self.body(x) + self.projection(x))


def _layers(block: Block) -> nn.Sequential:
    layers: list[nn.Module] = []
    for unit in range(block.units):
        if block.kind != 'conv':
            layers.append(Residual(block, unit))
            continue
        ((before, after, kernel, stride),) = block.convolutions(unit)
        layers += [nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class PlainNet(ClassifierNetwork):
    """See the module.

    Args:
        structure: the string.
        num_classes: K.
    """

    classifier_name = 'fc_linear'

    def __init__(self, structure: str, num_classes: int = 1000) -> None:
        super().__init__(num_classes)
        blocks = parse_structure(structure)
        if blocks[0].in_channels != 3:
            raise UserError(
                f'plainnet: the first block reads {blocks[0].in_channels} channels, an image has 3'
            )
        self.block_list = nn.ModuleList(_layers(block) for block in blocks)
        self.num_features = blocks[-1].out_channels
        self.fc_linear: nn.Module = (
            nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        )
        reduction, info = 1, []
        for number, block in enumerate(blocks):
            reduction *= block.stride
            info.append(
                {'num_chs': block.out_channels, 'reduction': reduction, 'module': f'block_list.{number}'}
            )
        self.feature_info = info
        self.pretrained_cfg = self.default_cfg = network_cfg(
            num_classes, 224, 'block_list.0.0', 'fc_linear', cifar=False
        )

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Return the map after every block."""
        maps = []
        for block in self.block_list:
            x = block(x)
            maps.append(x)
        return maps


@register_model
def plainnet(pretrained: bool = False, **kwargs: Any) -> PlainNet:
    """Build a network of any structure: ``structure='SuperConvK3BNRELU(3,64,1,1)...'``."""
    return PlainNet(**without_timms_own(kwargs))
