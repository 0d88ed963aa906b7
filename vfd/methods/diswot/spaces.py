"""Search spaces with the size of a network before it is built: CIFAR ResNets, NAS-Bench-201, Zen-NAS structures.

A candidate is a string. Every space gives a candidate's cost, whether it is worth building, and how it stands in a
config as a student.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from vfd.backbones.nas_bench_201 import OPERATIONS, format_cell, is_connected, parse_cell
from vfd.backbones.plainnet_grammar import (
    analytic_flops,
    analytic_params,
    format_structure,
    layer_count,
    parse_structure,
)
from vfd.errors import UserError, did_you_mean
from vfd.methods.diswot.cells import (
    cell_cost,
    cross_cells,
    graph_text,
    mutate_cell,
    random_cell,
)
from vfd.methods.diswot.structures import MOVES, cross_structures, mutate_structure


@dataclass(frozen=True)
class Cost:
    """Cost of a network.

    Attributes:
        flops: multiply-accumulates of one image.
        params: parameters.
    """

    flops: float
    params: float


class StudentSpace:
    """Interface of a space for the search; see :class:`vfd.methods.diswot.searchers.Space` for the rest.

    Args:
        num_classes: K of every student.
        input_size: side of the images in pixels.
    """

    unknown: Mapping[str, str] = {}  # requested names that do not exist: name -> reason

    def __init__(self, num_classes: int, input_size: int) -> None:
        self.num_classes = num_classes
        self.input_size = input_size

    def candidates(self) -> list[str] | None:
        """Return all candidates in a fixed order, or None where they are too many."""
        return None

    def cost(self, candidate: str) -> Cost:
        """Count multiply-accumulates and parameters."""
        raise NotImplementedError

    def invalid_reason(self, candidate: str) -> str:
        """Return why a candidate is not worth scoring; an empty string when it is."""
        return ''

    def graph_key(self, candidate: str) -> str:
        """Return a text that is equal for candidates which compute the same function, whatever their nodes' names."""
        return candidate

    def student(self, candidate: str) -> dict[str, Any]:
        """Return the student's config."""
        raise NotImplementedError

    def row_name(self, row: Mapping[str, str]) -> str:
        """Return the candidate of a row of a table of accuracies."""
        return row.get('candidate') or next(iter(row.values()))

    def _timm(self, model_name: str, **arguments: Any) -> dict[str, Any]:
        return {
            'type': 'mmpretrain.TimmClassifier',
            'model_name': model_name,
            'num_classes': self.num_classes,
            **arguments,
        }


class CifarResNetSpace(StudentSpace):
    """ResNets for 32 pixels with some number of blocks in each of three stages; ``7-1-3`` is a candidate.

    Args:
        depths: blocks that a stage may have; (1, 3, 5, 7) are the 64 students of the paper, (2, 6, 10, 14) its cousin.
        num_classes: K.
        input_size: side of the images.
        width: channels of the first stage.
    """

    def __init__(
        self,
        depths: Sequence[int] = (1, 3, 5, 7),
        num_classes: int = 100,
        input_size: int = 32,
        width: int = 16,
    ) -> None:
        super().__init__(num_classes, input_size)
        if not depths or min(depths) < 1:
            raise UserError(f'CifarResNetSpace: depths={list(depths)} must be positive numbers')
        self.depths = tuple(sorted(set(depths)))
        self.width = width

    def candidates(self) -> list[str]:
        """Return all candidates."""
        return ['-'.join(map(str, blocks)) for blocks in itertools.product(self.depths, repeat=3)]

    def random(self, rng: Random) -> str:
        """Draw a number of blocks for every stage."""
        return '-'.join(str(rng.choice(self.depths)) for _ in range(3))

    def mutate(self, candidate: str, rng: Random) -> str:
        """Draw another number of blocks for one stage."""
        blocks = candidate.split('-')
        stage = rng.randrange(3)
        others = [str(depth) for depth in self.depths if str(depth) != blocks[stage]]
        blocks[stage] = rng.choice(others or blocks)
        return '-'.join(blocks)

    def cross(self, one: str, other: str, rng: Random) -> str:
        """Take every stage from one of two."""
        return '-'.join(rng.choice(pair) for pair in zip(one.split('-'), other.split('-'), strict=True))

    def cost(self, candidate: str) -> Cost:
        """Count convolutions and classifier, bias included."""
        flops, params = resnet_cost(_blocks(candidate), self.width, self.num_classes, self.input_size)
        return Cost(flops, params)

    def student(self, candidate: str) -> dict[str, Any]:
        """Return ``cifar_resnet`` with these blocks."""
        width = {} if self.width == 16 else {'width': self.width}
        return self._timm('cifar_resnet', blocks=list(_blocks(candidate)), **width)

    def row_name(self, row: Mapping[str, str]) -> str:
        """Read columns ``depth1``, ``depth2``, ``depth3``, or as any space."""
        if 'depth1' in row:
            return '-'.join(row[f'depth{stage}'] for stage in (1, 2, 3))
        return super().row_name(row)


def _blocks(candidate: str) -> tuple[int, int, int]:
    first, second, third = (int(count) for count in candidate.split('-'))
    return first, second, third


def resnet_cost(blocks: Sequence[int], width: int, num_classes: int, size: int) -> tuple[int, int]:
    """Count multiply-accumulates (convolutions and classifier, bias included) and parameters of a CIFAR ResNet."""
    flops, params = 27 * width * size**2, 29 * width
    before = width
    for stage, count in enumerate(blocks):
        channels, side = width * 2**stage, size >> stage
        for block in range(count):
            source = before if block == 0 else channels
            weights = 9 * (source + channels) * channels
            norms = 4 * channels
            if source != channels:
                weights += source * channels
                norms += 2 * channels
            flops += weights * side**2
            params += weights + norms
        before = channels
    classifier = (before + 1) * num_classes
    return flops + classifier, params + classifier


class NASBench201Space(StudentSpace):
    """The 15,625 cells of NAS-Bench-201; a candidate is a cell string.

    Args:
        num_classes: K.
        input_size: side of the images.
        width: C; 16 in the benchmark.
        cells: N; 5 in the benchmark.
    """

    def __init__(self, num_classes: int = 100, input_size: int = 32, width: int = 16, cells: int = 5) -> None:
        super().__init__(num_classes, input_size)
        self.width, self.cells = width, cells

    def candidates(self) -> None:
        """Return None: too many to score one by one."""
        return None

    def random(self, rng: Random) -> str:
        """Draw an operation for every edge."""
        return format_cell(random_cell(rng))

    def mutate(self, candidate: str, rng: Random) -> str:
        """Draw another operation for one edge."""
        return format_cell(mutate_cell(parse_cell(candidate), rng))

    def cross(self, one: str, other: str, rng: Random) -> str:
        """Take every edge from one of two cells."""
        return format_cell(cross_cells(parse_cell(one), parse_cell(other), rng))

    def cost(self, candidate: str) -> Cost:
        """Count convolutions and classifier, bias included."""
        cell = parse_cell(candidate)
        return Cost(*cell_cost(cell, self.width, self.cells, self.num_classes, self.input_size))

    def invalid_reason(self, candidate: str) -> str:
        """Refuse a dead cell."""
        return (
            ''
            if is_connected(parse_cell(candidate))
            else 'dead cell: nothing of the input reaches the output'
        )

    def graph_key(self, candidate: str) -> str:
        """Return the output as a sum of operations, without those whose input is zero or whose output is unused."""
        return graph_text(parse_cell(candidate))

    def student(self, candidate: str) -> dict[str, Any]:
        """Return ``nas_bench_201`` with this cell."""
        usual = {'width': 16, 'cells': 5}
        own = {k: v for k, v in {'width': self.width, 'cells': self.cells}.items() if v != usual[k]}
        return self._timm('nas_bench_201', cell=candidate, **own)

    def row_name(self, row: Mapping[str, str]) -> str:
        """Read a column ``arch``, or operation indices ``ops`` (as tables of the benchmark have them)."""
        if 'ops' in row:
            return format_cell(tuple(OPERATIONS[int(op)] for op in row['ops']))
        return row.get('arch') or super().row_name(row)


class PlainNetSpace(StudentSpace):
    """Zen-NAS structures around one to start from; a candidate is a structure string.

    Args:
        start: the structure to start from.
        moves: ``xxbl`` or ``res18`` (smaller steps, blocks of two k x k convolutions only).
        max_layers: structures of more layers are refused; 18 in the released search.
        num_classes: K.
        input_size: side of the images.
    """

    def __init__(
        self,
        start: str,
        moves: str = 'xxbl',
        max_layers: int = 18,
        num_classes: int = 1000,
        input_size: int = 224,
    ) -> None:
        super().__init__(num_classes, input_size)
        if moves not in MOVES:
            raise UserError(
                f'PlainNetSpace: moves={moves!r} is not one of {list(MOVES)}{did_you_mean(moves, MOVES)}'
            )
        self.start = parse_structure(start)
        self.moves = MOVES[moves]
        self.max_layers = max_layers

    def random(self, rng: Random) -> str:
        """Change one block of the start."""
        return format_structure(mutate_structure(self.start, self.moves, rng))

    def mutate(self, candidate: str, rng: Random) -> str:
        """Change two blocks."""
        return format_structure(mutate_structure(parse_structure(candidate), self.moves, rng, times=2))

    def cross(self, one: str, other: str, rng: Random) -> str:
        """Take every block from one of two."""
        return format_structure(cross_structures(parse_structure(one), parse_structure(other), rng))

    def cost(self, candidate: str) -> Cost:
        """Return Zen-NAS's analytic numbers."""
        blocks = parse_structure(candidate)
        flops = analytic_flops(blocks, self.input_size, self.num_classes)
        return Cost(flops, analytic_params(blocks, self.num_classes))

    def invalid_reason(self, candidate: str) -> str:
        """Refuse too many layers."""
        count = layer_count(parse_structure(candidate))
        return f'{count} layers, more than {self.max_layers}' if count > self.max_layers else ''

    def student(self, candidate: str) -> dict[str, Any]:
        """Return ``plainnet`` with this structure."""
        return self._timm('plainnet', structure=candidate)
