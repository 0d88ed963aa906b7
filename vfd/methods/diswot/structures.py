"""Zen-NAS structures as a search space: neighbours of a block, mutation, crossover."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from vfd.backbones.plainnet_grammar import Block, parse_structure, split_structure

KERNELS = {3: (3, 5), 5: (3, 5, 7), 7: (3, 5, 7)}  # what a block drawn with a kernel may become
SMALLEST, LARGEST = 8, 2048  # channels, in steps of 8


@dataclass(frozen=True)
class Moves:
    """Range of a mutation.

    Attributes:
        factors: of channels and bottleneck.
        layers: how many layers may be added or taken away.
        kinds: kinds of blocks.
    """

    factors: tuple[float, ...]
    layers: int
    kinds: tuple[str, ...]


MOVES = {
    'xxbl': Moves((2.5, 2, 1.5, 1.25, 1, 1 / 1.25, 1 / 1.5, 1 / 2, 1 / 2.5), 2, ('k1kxk1', 'kxkx')),
    'res18': Moves((1.5, 1.25, 1, 1 / 1.25, 1 / 1.5), 1, ('kxkx',)),
}


def rounded(channels: float) -> int:
    """Round to a multiple of 8 within 8 and 2048, halves to the even multiple."""
    return min(LARGEST, max(SMALLEST, round(channels / 8) * 8))


def neighbour_lists(block: Block, moves: Moves) -> list[list[str]]:
    """Return what a block may become, one sorted list for each kind of block and kernel that may be drawn.

    A plain convolution (first and last block) changes its channels only and has one list. The released code keeps
    these candidates in a set, so that its draw depends on Python's hash seed; here they are sorted.
    """
    outs = {rounded(block.out_channels * factor) for factor in moves.factors}
    if block.kind == 'conv':
        return [sorted(str(replace(block, out_channels=out)) for out in outs)]
    inners = {rounded(block.bottleneck * factor) for factor in moves.factors}
    layers = [n for n in range(block.layers - moves.layers, block.layers + moves.layers + 1) if n > 0]
    return [
        sorted(
            str(replace(block, kind=kind, kernel=kernel, out_channels=out, bottleneck=inner, layers=count))
            for kernel in kernels
            for out in outs
            for inner in inners
            for count in layers
        )
        for kind in moves.kinds
        for kernels in KERNELS.values()
    ]


def rewired(blocks: list[Block]) -> list[Block]:
    """Make every block read as many channels as the one before gives."""
    result = blocks[:1]
    for block in blocks[1:]:
        result.append(replace(block, in_channels=result[-1].out_channels))
    return result


def mutate_structure(blocks: list[Block], moves: Moves, rng: random.Random, times: int = 1) -> list[Block]:
    """Change blocks at ``times`` random places; blocks of 6 or more layers are split."""
    for _ in range(times):
        place = rng.randrange(len(blocks))
        lists = neighbour_lists(blocks[place], moves)
        (chosen,) = parse_structure(rng.choice(rng.choice(lists)))
        blocks = rewired([*blocks[:place], chosen, *blocks[place + 1 :]])
    return split_structure(blocks)


def cross_structures(one: list[Block], other: list[Block], rng: random.Random) -> list[Block]:
    """Take every block from one of two structures of equally many blocks; otherwise the first one."""
    if len(one) != len(other):
        return one
    pairs = zip(one, other, strict=True)
    # The stride stays with the place: the resolution of the maps is no matter of chance.
    return rewired([replace(rng.choice(pair), stride=pair[0].stride) for pair in pairs])
