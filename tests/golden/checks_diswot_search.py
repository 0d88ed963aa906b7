"""DisWOT: rank statistics, sizes of networks, cells, structures, and what evolution does for a seed."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import timm
import torch
from golden_tools import close, equal

import vfd.backbones  # noqa: F401  (registers the networks)
from vfd.backbones.nas_bench_201 import OPERATIONS, format_cell, is_connected, parse_cell
from vfd.backbones.plainnet_grammar import (
    analytic_flops,
    analytic_params,
    format_structure,
    layer_count,
    parse_structure,
    split_structure,
)
from vfd.evaluation import rank_statistics
from vfd.methods.diswot.cells import isomorphism_key, mutate_cell, random_cell
from vfd.methods.diswot.listed_spaces import counted_cost
from vfd.methods.diswot.searchers import AgingEvolution
from vfd.methods.diswot.spaces import CifarResNetSpace, NASBench201Space
from vfd.methods.diswot.structures import MOVES, neighbour_lists
from vfd.methods.diswot.table import TableScorer


def check_rank(case) -> None:
    true, predicted = case['true'], case['pred']
    ours = {
        'kendall': rank_statistics.kendall(true, predicted),
        'spearman': rank_statistics.spearman(true, predicted),
        'pearson': rank_statistics.pearson(true, predicted),
        'rank_difference': rank_statistics.rank_difference(true, predicted),
        'cpr': rank_statistics.concordant_ratio(true, predicted),
    }
    for name, reference in case.under('out::').items():
        close(ours[name], reference, name=name)
    for name, rows in (
        ('minmax_n_at_k', rank_statistics.rank_at_k),
        ('p_at_tb_k', rank_statistics.precision_at_k),
    ):
        close(rows(true, predicted, case[name][:, 0]), case[name], name=name)


def check_flops(case) -> None:
    cells = NASBench201Space(num_classes=case['num_classes_nb201'])
    rows = [(cells, row['arch'], row) for row in case['nb201']]
    resnets = CifarResNetSpace(num_classes=100)
    rows += [(resnets, '-'.join(map(str, row['depths'])), row) for row in case['s0']]
    for number, (space, candidate, row) in enumerate(rows):
        cost = space.cost(candidate)
        close(cost.flops / 1e6, row['mflops'], 1e-6, candidate)
        close(cost.params / 1e6, row['mparams'], 1e-6, candidate)
        if number % 8 == 0:  # the network that is built has this size
            assert counted_cost(space.student(candidate), space.input_size).params == cost.params


def check_genotype(case) -> None:
    for row in case.under('').values():
        cell = parse_cell(row['arch'])
        assert format_cell(cell) == row['roundtrip']
        assert is_connected(cell) == row['valid']
        assert isomorphism_key(cell, drop_zeros=False) == row['unique']
        assert isomorphism_key(cell) == row['unique_zero']
        assert row['index'] >= 0


EDGE_FLOPS = {'none': 0, 'skip_connect': 0, 'nor_conv_1x1': 7, 'nor_conv_3x3': 40, 'avg_pool_3x3': 0.5}


def additive_flops(candidate: str) -> float:
    return 10 + sum(EDGE_FLOPS[op] for op in parse_cell(candidate)) / 1.7


def check_evolution(case) -> None:
    assert tuple(case['ops']) == OPERATIONS
    sampling = case['sampling']
    rng = random.Random(sampling['seed'])
    cells = [random_cell(rng) for _ in sampling['random']]
    assert [format_cell(cell) for cell in cells] == sampling['random']
    assert [format_cell(mutate_cell(cell, rng)) for cell in cells] == sampling['mutated']

    space = NASBench201Space()
    accuracy = TableScorer(space, case.path.parent / 'nb201_accuracy.npz', 'cifar100')
    for name, quirk in (('reference_trace', None), ('official_trace', 'released')):
        trace = case[name]
        wanted = trace['history']
        searcher = AgingEvolution(len(wanted), trace['population'], trace['sample'], quirk=quirk)
        history = searcher.run(
            space,
            accuracy,
            lambda candidate, trace=trace: additive_flops(candidate) <= trace['target_flops'],
            random.Random(trace['seed']),
        )
        assert [candidate for candidate, _ in history] == [row['arch'] for row in wanted], name
        close(
            [score for _, score in history], [row['score'] for row in wanted], 1e-6, name
        )  # a float32 table
        if 'best' in trace:
            best = max(history, key=lambda entry: entry[1])
            assert best[0] == trace['best']['arch']
            close(best[1], trace['best']['score'], 1e-6)
        assert trace.get('total', len(wanted)) == len(wanted) <= trace.get('budget', len(wanted))


def check_plainnet(case) -> None:
    for row in case['nets']:
        blocks = parse_structure(row['struct'])
        assert format_structure(blocks) == row['str']
        assert format_structure(split_structure(blocks)) == row['split6']
        assert layer_count(blocks) == row['layers']
        assert analytic_flops(blocks, row['resolution'], row['num_classes']) == row['flops']
        assert analytic_params(blocks, row['num_classes']) == row['params']
        with torch.device('meta'):
            network = timm.create_model('plainnet', structure=row['struct'], num_classes=row['num_classes'])
            maps = network.stage_maps(torch.zeros(2, 3, row['resolution'], row['resolution']))
        assert sum(p.numel() for p in network.parameters()) == row['actual_params']
        assert [list(m.shape) for m in maps] + [[2, network.num_features]] == row['feature_shapes']
    for row in case['mutations']:
        lists = neighbour_lists(parse_structure(row['struct'])[row['block']], MOVES[row['space']])
        assert [len(one) for one in lists] == row['counts']
        assert [hashlib.sha256('\n'.join(one).encode()).hexdigest() for one in lists] == row['sha256']
        assert [one[:3] for one in lists] == row['first'] and [one[-3:] for one in lists] == row['last']


def check_accuracy_table(case) -> None:
    """Data: every cell once, in the order of names that the networks use."""
    ops = case['ops']
    assert tuple(case['op_names'].tolist()) == OPERATIONS
    assert len(np.unique(ops, axis=0)) == len(ops) and ops.shape[1] == 6
    for name in ('cifar10', 'cifar100', 'imagenet16_120'):
        assert case[name].shape == (len(ops),) and case[name].min() > 0 and case[name].max() < 100
    row = {'ops': ops[0]}
    equal([OPERATIONS.index(op) for op in parse_cell(NASBench201Space().row_name(row))], ops[0])


CHECKS = {
    'rank': check_rank,
    'flops': check_flops,
    'genotype': check_genotype,
    'evolution': check_evolution,
    'plainnet': check_plainnet,
    'nb201_accuracy': check_accuracy_table,
}
