"""ResNets for 32-pixel images: the teachers of CIFAR distillation papers, and the space of 64 students around ResNet20.

    timm.create_model('cifar_resnet', blocks=(7, 1, 3), num_classes=100)
    timm.create_model('cifar_resnet110', num_classes=100)

Stem of 16 channels, three stages of basic blocks with 16, 32, 64 channels and strides 1, 2, 2 (He et al., CVPR 2016,
section 4.2), a 1x1 convolution as shortcut where the shape changes. Tensors have the names of RepDistiller's files:
``conv1, bn1, layer{1,2,3}.i.{conv1,bn1,conv2,bn2,downsample.0,downsample.1}, fc``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vfd.backbones.timm_protocol import ClassifierNetwork, network_cfg, register_model, without_timms_own
from vfd.errors import UserError

__all__ = ['CifarResNet']


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return out.add_(x if self.downsample is None else self.downsample(x)).relu_()


class CifarResNet(ClassifierNetwork):
    """See the module.

    Args:
        blocks: basic blocks of each of the three stages; (3, 3, 3) is ResNet20, (18, 18, 18) ResNet110.
        num_classes: K.
        width: channels of stem and first stage; the others have two and four times as many.
        in_chans: channels of the images.
    """

    classifier_name = 'fc'

    def __init__(
        self, blocks: Sequence[int] = (3, 3, 3), num_classes: int = 100, width: int = 16, in_chans: int = 3
    ) -> None:
        super().__init__(num_classes)
        if len(blocks) != 3 or min(blocks) < 1:
            raise UserError(
                f'cifar_resnet: blocks={list(blocks)}; give three positive numbers, such as (3, 3, 3)'
            )
        widths = (width, 2 * width, 4 * width)
        self.conv1 = nn.Conv2d(in_chans, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        before = width
        for number, (count, channels) in enumerate(zip(blocks, widths, strict=True), 1):
            stage = [
                BasicBlock(before if i == 0 else channels, channels, 2 if i == 0 and number > 1 else 1)
                for i in range(count)
            ]
            setattr(self, f'layer{number}', nn.Sequential(*stage))
            before = channels
        self.num_features = before
        self.fc: nn.Module = nn.Linear(before, num_classes) if num_classes else nn.Identity()
        self.feature_info = [
            {'num_chs': channels, 'reduction': 2**i, 'module': f'layer{i + 1}'}
            for i, channels in enumerate(widths)
        ]
        self.pretrained_cfg = self.default_cfg = network_cfg(num_classes, 32, 'conv1', 'fc')
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Return three maps after their last ReLU: (B, w, H, W), (B, 2w, H/2, W/2), (B, 4w, H/4, W/4)."""
        x = self.relu(self.bn1(self.conv1(x)))
        maps = []
        for number in (1, 2, 3):
            x = getattr(self, f'layer{number}')(x)
            maps.append(x)
        return maps


@register_model
def cifar_resnet(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Build a network of any numbers of blocks: ``blocks=(3, 3, 3)``."""
    return CifarResNet(**without_timms_own(kwargs))


def _register(depth: int) -> None:
    def entry(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
        return CifarResNet(**{'blocks': (((depth - 2) // 6),) * 3, **without_timms_own(kwargs)})

    entry.__name__ = f'cifar_resnet{depth}'
    entry.__module__ = __name__
    register_model(entry)


for _depth in (8, 14, 20, 32, 44, 56, 110):
    _register(_depth)
