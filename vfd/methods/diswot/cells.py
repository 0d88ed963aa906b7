"""Cells of NAS-Bench-201 as a search space: random ones, mutations, crossover, isomorphism.

The order of random calls is that of the released code, so that a seed gives its cells.
"""

from __future__ import annotations

import random

from vfd.backbones.nas_bench_201 import EDGES, OPERATIONS, Cell


def random_cell(rng: random.Random) -> Cell:
    """Draw an operation for every edge."""
    return tuple(rng.choice(OPERATIONS) for _ in EDGES)


def mutate_cell(cell: Cell, rng: random.Random) -> Cell:
    """Change the operation of one edge: a random node, a random edge of it, draws until the operation differs."""
    node = rng.randint(1, 3)
    source = rng.randint(0, node - 1)
    edge = EDGES.index((node, source))
    operation = rng.choice(OPERATIONS)
    while operation == cell[edge]:
        operation = rng.choice(OPERATIONS)
    return (*cell[:edge], operation, *cell[edge + 1 :])


def cross_cells(one: Cell, other: Cell, rng: random.Random) -> Cell:
    """Take every edge from one of two cells."""
    return tuple(rng.choice(pair) for pair in zip(one, other, strict=True))


def isomorphism_key(cell: Cell, drop_zeros: bool = True) -> str:
    """Return the benchmark's own string, equal for cells which compute the same function up to the names of nodes.

    It still differs for some of them: by how many zeros are added, and which nodes only pass a sum on.

    Args:
        cell: six operations.
        drop_zeros: write ``#`` for everything that is zero because of ``none``; False keeps ``none`` as an operation.
    """
    nodes = ['0']
    for node in (1, 2, 3):
        inputs = []
        for (target, source), op in zip(EDGES, cell, strict=True):
            if target != node:
                continue
            if drop_zeros and (op == 'none' or nodes[source] == '#'):
                inputs.append('#')
            elif op == 'skip_connect':
                inputs.append(nodes[source])
            else:
                inputs.append(f'({nodes[source]})@{op}')
        nodes.append('+'.join(sorted(inputs)))
    return nodes[-1]


def graph_text(cell: Cell) -> str:
    """Return a string that is equal for exactly those cells whose output is the same sum of the same operations.

    Zeros are left out, and a node that is handed on by ``skip_connect`` adds its own terms.
    """
    terms = [['x']]
    for node in (1, 2, 3):
        found: list[str] = []
        for (target, source), op in zip(EDGES, cell, strict=True):
            if target != node or op == 'none':
                continue
            if op == 'skip_connect':
                found += terms[source]
            elif terms[source]:
                found.append(f'{op}({"+".join(terms[source])})')
        terms.append(sorted(found))
    return '+'.join(terms[-1])


def cell_cost(
    cell: Cell, width: int, cells: int, num_classes: int, size: int = 32, in_chans: int = 3
) -> tuple[int, int]:
    """Count multiply-accumulates (convolutions and classifier, bias included) and parameters, without the network.

    Args:
        cell: six operations.
        width: C.
        cells: N.
        num_classes: K.
        size: side of the images.
        in_chans: their channels.
    """
    flops = in_chans * width * 9 * size**2
    params = in_chans * width * 9 + 2 * width
    for stage in range(3):
        channels, side = width * 2**stage, size >> stage
        if stage:
            half = channels // 2
            weights = 9 * half * channels + 9 * channels * channels + half * channels
            flops += weights * side**2
            params += weights + 4 * channels
        for op in cell:
            if op.startswith('nor_conv'):
                weights = channels * channels * int(op[-1]) ** 2
                flops += cells * weights * side**2
                params += cells * (weights + 2 * channels)
    last = 4 * width
    return flops + (last + 1) * num_classes, params + 2 * last + (last + 1) * num_classes
