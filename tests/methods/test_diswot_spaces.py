"""Search spaces: sizes of what would be built, dead and unbuildable candidates, unknown names."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import timm
import torch

import vfd.backbones  # noqa: F401  (registers the networks)
from vfd.backbones.nas_bench_201 import EDGES, OPERATIONS, is_connected, parse_cell
from vfd.backbones.plainnet_grammar import (
    analytic_params,
    format_structure,
    parse_structure,
    split_structure,
)
from vfd.errors import UserError
from vfd.methods.diswot.cells import graph_text, isomorphism_key
from vfd.methods.diswot.listed_spaces import ConfigSpace, TimmSpace, counted_cost
from vfd.methods.diswot.networks import batch_statistics, compute_outputs, gaussian_init
from vfd.methods.diswot.scoring import StudentScorer
from vfd.methods.diswot.spaces import CifarResNetSpace, NASBench201Space, PlainNetSpace
from vfd.methods.diswot.structures import MOVES, cross_structures, mutate_structure

START = 'SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,16,2)SuperResK1K3K1(32,64,2,16,5)'
DEAD = '|none~0|+|none~0|nor_conv_3x3~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|'
STUDENT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=64),
)


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        (
            '|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|',
            '|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|',
        ),
        (
            '|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|avg_pool_3x3~0|skip_connect~1|nor_conv_3x3~2|',
            '|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|avg_pool_3x3~0|nor_conv_3x3~1|skip_connect~2|',
        ),
    ],
)
def test_cells_of_one_graph_are_one_network(one, other):
    """With the weights of one in the edges of the other that stand for them."""
    space = NASBench201Space(10, width=4, cells=1)
    assert space.graph_key(one) == space.graph_key(other)
    assert space.graph_key(one) != space.graph_key(one.replace('nor_conv_3x3~0', 'nor_conv_1x1~0'))
    assert space.cost(one) == space.cost(other)
    networks = [
        timm.create_model('nas_bench_201', num_classes=10, cell=c, width=4, cells=1).eval().double()
        for c in (one, other)
    ]
    shapes = [sorted(tuple(value.shape) for value in network.state_dict().values()) for network in networks]
    assert shapes[0] == shapes[1]
    with torch.no_grad():
        for network in networks:
            for name, parameter in network.named_parameters():  # by kind of operation, not by edge
                torch.manual_seed(sum(map(ord, name.split('layers')[0])) + parameter.numel())
                parameter.normal_()
    images = torch.randn(2, 3, 16, 16).double()
    torch.testing.assert_close(*(network(images) for network in networks))


def test_graphs_of_all_cells():
    """Two cells have one text when they compute one function, and the benchmark's own text never tells more."""

    def apply(op: str, value: float) -> float:
        """Any functions that give 0 for 0, as the operations do."""
        number = OPERATIONS.index(op)
        return {'none': 0.0, 'skip_connect': value}.get(
            op, (1 + number / 7) * math.tanh((0.3 + number / 5) * value)
        )

    values: dict[str, set[float]] = {}
    benchmark: dict[str, set[str]] = {}
    for cell in itertools.product(OPERATIONS, repeat=6):
        nodes = [1.0]
        for node in (1, 2, 3):
            pairs = [(source, op) for (target, source), op in zip(EDGES, cell, strict=True) if target == node]
            nodes.append(sum(apply(op, nodes[source]) for source, op in pairs))
        text = graph_text(cell)
        assert bool(text) == is_connected(cell)
        values.setdefault(text, set()).add(round(nodes[-1], 9))
        benchmark.setdefault(isomorphism_key(cell), set()).add(text)
    assert all(len(found) == 1 for found in values.values())
    assert len(set.union(*values.values())) == len(values)
    assert len(benchmark) == 6466 and all(len(found) == 1 for found in benchmark.values())


def spaces() -> list:
    return [
        CifarResNetSpace((1, 2), 10, width=4),
        NASBench201Space(10, width=4, cells=1),
        PlainNetSpace(START, num_classes=10, input_size=32),
        TimmSpace(['test_resnet', 'test_eff*'], 10, 64),
        ConfigSpace(STUDENT, {'backbone.depth': [18, 34], 'backbone.stem_channels': [8, 16]}, 10, 32),
    ]


@pytest.mark.parametrize('space', spaces(), ids=lambda space: type(space).__name__)
def test_neighbours_are_candidates_and_cost_what_is_built(space):
    rng = random.Random(0)
    one, other = space.random(rng), space.random(rng)
    listed = space.candidates()
    for candidate in (one, space.mutate(one, rng), space.cross(one, other, rng)):
        assert listed is None or candidate in listed
        cost, built = space.cost(candidate), counted_cost(space.student(candidate), space.input_size)
        assert cost.flops > 0
        if not isinstance(space, PlainNetSpace):  # whose analytic numbers are rougher
            assert cost.params == built.params
            classifier_bias = 10
            assert 0 <= cost.flops - built.flops <= classifier_bias
        else:
            assert abs(cost.params / built.params - 1) < 0.05


def test_the_same_seed_draws_the_same():
    for first, second in zip(spaces(), spaces(), strict=True):
        drawn = [
            [space.random(random.Random(5)), space.random(random.Random(6))] for space in (first, second)
        ]
        assert drawn[0] == drawn[1]


def test_a_dead_cell_has_a_finite_score_and_is_refused_by_its_space():
    space = NASBench201Space(10, width=4, cells=1)
    assert 'dead cell' in space.invalid_reason(DEAD) and not space.invalid_reason(
        DEAD.replace('none~0', 'skip_connect~0')
    )
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    teacher = {'type': 'vfd.TimmSource', 'model_name': 'cifar_resnet8', 'num_classes': 10, 'width': 4}
    scores = StudentScorer(teacher, ['sum', 'relation'], [(images, labels)], (0,)).scores(space.student(DEAD))
    assert all(value == value and abs(value) < 1e6 for (value,) in scores.values())
    network = timm.create_model('nas_bench_201', cell=DEAD, width=4, cells=3, num_classes=10)
    gaussian_init(network, 0)
    with batch_statistics(network), torch.inference_mode():
        features = compute_outputs(network, images).features
    assert torch.allclose(features, features[:1].expand_as(features))


def test_unknown_models_of_timm_are_named_with_the_nearest_one():
    space = TimmSpace(['resnet81', 'test_resnet', 'nothing_like_it_*'], 10, 64)
    assert space.candidates() == ['test_resnet']
    assert 'did you mean "resnet18"' in space.unknown['resnet81']
    assert 'nothing_like_it_*' in space.unknown
    with pytest.raises(UserError, match='timm has no model "resnet81"'):
        TimmSpace(['resnet81'])


def test_patterns_are_those_of_timm():
    names = TimmSpace(['mobilenetv3_small_*', 'mobilenetv3_small_100']).candidates()
    assert names.count('mobilenetv3_small_100') == 1 and len(names) > 2


def test_transformers_are_built_for_the_size_of_the_images():
    student = TimmSpace(['vit_tiny_patch16_224', 'resnet18'], 10, 64)
    assert student.student('vit_tiny_patch16_224')['img_size'] == 64
    assert 'img_size' not in student.student('resnet18')
    assert student.cost('vit_tiny_patch16_224').params < 5.6e6


def test_structures_grow_split_and_cross():
    blocks, rng = parse_structure(START), random.Random(1)
    for _ in range(20):
        blocks = mutate_structure(blocks, MOVES['xxbl'], rng, times=2)
        assert parse_structure(format_structure(blocks)) == blocks
        assert all(block.layers < 6 and block.out_channels % 8 == 0 for block in blocks)
    many = parse_structure('SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,9)')
    parts = split_structure(many)
    assert [part.layers for part in parts] == [1, 3, 6] and [part.stride for part in parts] == [1, 2, 1]
    assert analytic_params(parts, 10) == analytic_params(many, 10)
    start = parse_structure(START)
    child = cross_structures(start, mutate_structure(start, MOVES['res18'], rng), rng)
    assert parse_structure(format_structure(child)) == child


def test_a_structure_of_too_many_layers_is_refused():
    assert 'more than 5' in PlainNetSpace(START, max_layers=5).invalid_reason(START)
    assert not PlainNetSpace(START).invalid_reason(START)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: parse_cell('|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|'), 'unknown operation'),
        (lambda: parse_cell('|none~0|'), 'is no NAS-Bench-201 cell'),
        (lambda: parse_structure('SuperConvK3BNRELU(3,8,1)'), 'cannot read'),
        (lambda: parse_structure('SuperResK3K5(3,8,1,8,1)'), 'cannot read'),
        (lambda: parse_structure(START.replace('(16,32', '(24,32')), 'gives 16 channels, but then'),
        (lambda: timm.create_model('plainnet', structure='SuperConvK3BNRELU(4,8,1,1)'), 'an image has 3'),
        (lambda: timm.create_model('cifar_resnet', blocks=(3, 3)), 'three positive numbers'),
        (lambda: CifarResNetSpace(depths=()), 'must be positive'),
        (lambda: PlainNetSpace(START, moves='xxl'), 'did you mean "xxbl"'),
        (lambda: ConfigSpace(STUDENT, {}), 'names fields and their values'),
        (lambda: ConfigSpace(STUDENT, {'backbon.depth': [18]}), 'has no "backbon"'),
        (
            lambda: ConfigSpace(STUDENT, {'backbone.depth': [*range(200)], 'head.topk': [*range(200)]}),
            'fewer',
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()
