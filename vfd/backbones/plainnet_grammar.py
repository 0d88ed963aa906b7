"""The strings in which Zen-NAS writes plain networks: parsing, sizes, splitting.

    SuperConvK{k}BNRELU(in,out,stride,layers)               k x k convolution, batch norm, ReLU; repeated
    SuperResK{k}K{k}(in,out,stride,bottleneck,layers)       residual blocks of two k x k convolutions
    SuperResK1K{k}K1(in,out,stride,bottleneck,layers)       pairs of residual blocks 1x1, k x k, 1x1

The sizes are the analytic ones of Zen-NAS (arXiv 2102.01063), which limits are written in: convolutions and batch norm
count, a batch norm as one multiplication a value and one parameter a channel, a classifier's bias as one parameter,
and a shortcut's convolution at a resolution that is reduced twice.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace

from vfd.errors import UserError

BLOCK = re.compile(r'(SuperConvK(\d+)BNRELU|SuperResK1K(\d+)K1|SuperResK(\d+)K(\d+))\(([\d,]+)\)')
SPLIT_AT = 6  # blocks of so many layers become two, the first with half of this number


@dataclass(frozen=True)
class Block:
    """One word of a structure.

    Attributes:
        kind: ``conv``, ``kxkx`` or ``k1kxk1``.
        kernel: k.
        in_channels: channels that come in.
        out_channels: channels that go out.
        stride: of the first layer.
        bottleneck: channels inside a residual block; 0 for ``conv``.
        layers: repetitions; those after the first have stride 1.
    """

    kind: str
    kernel: int
    in_channels: int
    out_channels: int
    stride: int
    bottleneck: int
    layers: int

    def __str__(self) -> str:
        k = self.kernel
        name = {'conv': f'SuperConvK{k}BNRELU', 'kxkx': f'SuperResK{k}K{k}', 'k1kxk1': f'SuperResK1K{k}K1'}
        inner = [self.bottleneck] if self.kind != 'conv' else []
        numbers = [self.in_channels, self.out_channels, self.stride, *inner, self.layers]
        return f'{name[self.kind]}({",".join(map(str, numbers))})'

    @property
    def units(self) -> int:
        """Convolutions or residual blocks in a row: a layer of ``k1kxk1`` is two residual blocks."""
        return self.layers * (2 if self.kind == 'k1kxk1' else 1)

    def convolutions(self, unit: int) -> list[tuple[int, int, int, int]]:
        """Return (in, out, kernel, stride) of every convolution of a unit, shortcuts aside."""
        before = self.in_channels if unit == 0 else self.out_channels
        stride = self.stride if unit == 0 else 1
        inner, out, k = self.bottleneck, self.out_channels, self.kernel
        if self.kind == 'conv':
            return [(before, out, k, stride)]
        if self.kind == 'kxkx':
            return [(before, inner, k, stride), (inner, out, k, 1)]
        return [(before, inner, 1, 1), (inner, inner, k, stride), (inner, out, 1, 1)]

    def has_projection(self, unit: int) -> bool:
        """Return whether a shortcut is a convolution: where sizes change, or in the first unit of ``k1kxk1``."""
        if self.kind == 'conv' or unit > 0:
            return False
        return self.kind == 'k1kxk1' or self.stride > 1 or self.in_channels != self.out_channels

    def split(self) -> list[Block]:
        """Split a block of many layers in two."""
        if self.layers < SPLIT_AT:
            return [self]
        first = replace(self, layers=SPLIT_AT // 2)
        rest = replace(self, in_channels=self.out_channels, stride=1, layers=self.layers - SPLIT_AT // 2)
        return [first, rest]


def parse_structure(text: str) -> list[Block]:
    """Parse a structure string into blocks.

    Raises:
        UserError: something is no block, or the channels of neighbours differ.
    """
    blocks, end = [], 0
    for match in BLOCK.finditer(text):
        numbers = [int(number) for number in match[6].split(',') if number]
        is_conv = match[1].startswith('SuperConv')
        if (
            match.start() != end
            or len(numbers) != (4 if is_conv else 5)
            or min(numbers) < 1
            or match[4] != match[5]
        ):
            break
        kernel = int(match[2] or match[3] or match[4])
        kind = 'conv' if is_conv else 'k1kxk1' if match[3] else 'kxkx'
        inner = 0 if is_conv else numbers[3]
        blocks.append(Block(kind, kernel, numbers[0], numbers[1], numbers[2], inner, numbers[-1]))
        end = match.end()
    if not blocks or end != len(text):
        raise UserError(
            f'plainnet structure: cannot read "{text[end : end + 60]}"; write SuperConvK3BNRELU(in,out,stride,layers), '
            'SuperResK3K3(in,out,stride,bottleneck,layers) or SuperResK1K3K1(in,out,stride,bottleneck,layers)'
        )
    for one, other in itertools.pairwise(blocks):
        if one.out_channels != other.in_channels:
            raise UserError(
                f'plainnet structure: {one} gives {one.out_channels} channels, but then comes {other}'
            )
    return blocks


def format_structure(blocks: list[Block]) -> str:
    """Write blocks as a structure string."""
    return ''.join(map(str, blocks))


def split_structure(blocks: list[Block]) -> list[Block]:
    """Split every block of 6 or more layers in two."""
    return [part for block in blocks for part in block.split()]


def layer_count(blocks: list[Block]) -> int:
    """Count the layers as search limits do."""
    return sum(block.layers for block in blocks)


def analytic_flops(blocks: list[Block], resolution: int, num_classes: int) -> float:
    """Count the multiply-accumulates of one image of ``resolution`` x ``resolution`` pixels."""
    total, side = 0.0, float(resolution)
    for block in blocks:
        for unit in range(block.units):
            for before, after, kernel, stride in block.convolutions(unit):
                side /= stride
                total += (before * after * kernel**2 + after) * side**2
            if block.has_projection(unit):
                total += (block.in_channels + 1) * block.out_channels * (side / block.stride) ** 2
    return total + blocks[-1].out_channels * num_classes


def analytic_params(blocks: list[Block], num_classes: int) -> float:
    """Count the parameters."""
    total = 0.0
    for block in blocks:
        for unit in range(block.units):
            total += sum((b * k**2 + 1) * a for b, a, k, _ in block.convolutions(unit))
            if block.has_projection(unit):
                total += (block.in_channels + 1) * block.out_channels
    return total + blocks[-1].out_channels * num_classes + 1
