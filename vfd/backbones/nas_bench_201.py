"""The networks of NAS-Bench-201: a cell of six edges, repeated.

    timm.create_model('nas_bench_201', cell='|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|none~2|')

Paper: "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", arXiv 2001.00326. A stem, three
stages of N cells with C, 2C, 4C channels, a residual block of stride 2 between the stages, batch norm, ReLU, mean,
classifier. Tensors have the benchmark's names: ``stem.{0,1}``, ``cells.i.layers.j.op.{1,2}`` (edges in the order
1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2), ``cells.i.{conv_a,conv_b}.op.{1,2}``, ``cells.i.downsample.1``, ``lastact.0``,
``classifier``.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from vfd.backbones.timm_protocol import ClassifierNetwork, network_cfg, register_model, without_timms_own
from vfd.errors import UserError, did_you_mean

__all__ = ['OPERATIONS', 'NASBench201Network', 'format_cell', 'is_connected', 'parse_cell']

OPERATIONS = ('none', 'skip_connect', 'nor_conv_1x1', 'nor_conv_3x3', 'avg_pool_3x3')
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))  # (node, node it reads)

Cell = tuple[str, ...]


def parse_cell(text: str) -> Cell:
    """Parse a cell string ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``: six operations, in the order of ``EDGES``.

    Raises:
        UserError: the text is no cell.
    """
    found = re.findall(r'(\w+)~(\d)', text)
    names = tuple(name for name, _ in found)
    for name in names:
        if name not in OPERATIONS:
            raise UserError(
                f'NAS-Bench-201 cell "{text}": unknown operation "{name}"{did_you_mean(name, OPERATIONS)}; '
                f'the operations are {", ".join(OPERATIONS)}'
            )
    if len(names) != len(EDGES) or format_cell(names) != text:
        raise UserError(f'"{text}" is no NAS-Bench-201 cell; write |op~0|+|op~0|op~1|+|op~0|op~1|op~2|')
    return names


def format_cell(cell: Cell) -> str:
    """Write six operations as a string."""
    nodes = [
        '|'.join(f'{op}~{source}' for (target, source), op in zip(EDGES, cell, strict=True) if target == node)
        for node in (1, 2, 3)
    ]
    return '+'.join(f'|{node}|' for node in nodes)


def is_connected(cell: Cell) -> bool:
    """Return whether the output of a cell depends on its input."""
    reached = {0}
    for (target, source), op in zip(EDGES, cell, strict=True):
        if op != 'none' and source in reached:
            reached.add(target)
    return 3 in reached


class ReLUConvBN(nn.Module):
    """ReLU, convolution, batch norm."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        return self.op(x)


def _edge(op: str, channels: int) -> nn.Module:
    if op == 'avg_pool_3x3':
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    if op.startswith('nor_conv'):
        return ReLUConvBN(channels, channels, int(op[-1]))
    return nn.Identity()  # skip_connect; never called for none


class SearchedCell(nn.Module):
    """Four nodes; each is the sum of its edges."""

    def __init__(self, cell: Cell, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_edge(op, channels) for op in cell)
        self.edges = [
            [(source, j) for j, (to, source) in enumerate(EDGES) if to == node and cell[j] != 'none']
            for node in (1, 2, 3)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same. Nodes that nothing reaches are zero; their readers run, as in the benchmark."""
        nodes = [x]
        for edges in self.edges:
            inputs = [self.layers[j](nodes[source]) for source, j in edges]
            value = inputs[0] if inputs else torch.zeros_like(x)
            for other in inputs[1:]:
                value = value + other
            nodes.append(value)
        return nodes[-1]


class ReductionBlock(nn.Module):
    """The residual block of stride 2 between two stages."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv_a = ReLUConvBN(in_channels, channels, 3, 2)
        self.conv_b = ReLUConvBN(channels, channels, 3)
        self.downsample = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(in_channels, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / 2, W / 2)."""
        return self.downsample(x) + self.conv_b(self.conv_a(x))


class NASBench201Network(ClassifierNetwork):
    """See the module.

    Args:
        cell: the cell's string.
        num_classes: K.
        width: C, channels of the first stage.
        cells: N, cells a stage.
        in_chans: channels of the images.
    """

    classifier_name = 'classifier'

    def __init__(
        self, cell: str, num_classes: int = 100, width: int = 16, cells: int = 5, in_chans: int = 3
    ) -> None:
        super().__init__(num_classes)
        operations = parse_cell(cell)
        self.stem = nn.Sequential(nn.Conv2d(in_chans, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))
        self.cells = nn.ModuleList()
        for stage in range(3):
            channels = width * 2**stage
            if stage:
                self.cells.append(ReductionBlock(channels // 2, channels))
            self.cells.extend(SearchedCell(operations, channels) for _ in range(cells))
        self.num_features = 4 * width
        self.lastact = nn.Sequential(nn.BatchNorm2d(self.num_features), nn.ReLU(inplace=True))
        self.classifier: nn.Module = (
            nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        )
        self._ends = [(stage + 1) * cells + stage - 1 for stage in range(3)]  # the last cell of each stage
        self.feature_info = [
            {'num_chs': width * 2**i, 'reduction': 2**i, 'module': f'cells.{end}'}
            for i, end in enumerate(self._ends)
        ]
        self.pretrained_cfg = self.default_cfg = network_cfg(num_classes, 32, 'stem.0', 'classifier')

    def stage_maps(self, x: Tensor) -> list[Tensor]:
        """Return the maps of two stages, and of the last after batch norm and ReLU: (B, C 2^i, H/2^i, W/2^i)."""
        x = self.stem(x)
        maps = []
        for number, cell in enumerate(self.cells):
            x = cell(x)
            if number in self._ends:
                maps.append(x)
        return [*maps[:-1], self.lastact(maps[-1])]


@register_model
def nas_bench_201(pretrained: bool = False, **kwargs: Any) -> NASBench201Network:
    """Build a network of any cell: ``cell='|...|+|...|...|+|...|...|...|'``."""
    return NASBench201Network(**without_timms_own(kwargs))
