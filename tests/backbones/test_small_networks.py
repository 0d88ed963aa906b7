"""CIFAR ResNets, NAS-Bench-201 and plain networks: they answer as timm's networks do, under the published names."""

from __future__ import annotations

import pytest
import timm
import torch

import vfd.backbones  # noqa: F401  (registers the networks)
from vfd.backbones.nas_bench_201 import EDGES, parse_cell
from vfd.backbones.plainnet_grammar import analytic_params, parse_structure
from vfd.registry import MODELS

CELL = '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|'
NETWORKS = {
    'cifar_resnet': dict(model_name='cifar_resnet', blocks=(2, 1, 1), width=4, num_classes=7),
    'nas_bench_201': dict(model_name='nas_bench_201', cell=CELL, width=4, cells=2, num_classes=7),
    'plainnet': dict(
        model_name='plainnet',
        structure='SuperConvK3BNRELU(3,8,1,1)SuperResK1K3K1(8,16,2,8,1)SuperResK3K3(16,16,2,8,2)',
        num_classes=7,
    ),
}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=NETWORKS)
def network(request):
    return timm.create_model(**NETWORKS[request.param]).eval()


def test_parts_make_the_whole(network):
    features = network.forward_features(IMAGES)
    assert features.shape == (2, network.num_features, 8, 8)
    pooled = network.forward_head(features, pre_logits=True)
    torch.testing.assert_close(network.get_classifier()(pooled), network(IMAGES))
    last, maps = network.forward_intermediates(IMAGES)
    assert last.equal(features) and maps[-1].equal(features)
    for info, stage in zip(network.feature_info, maps, strict=True):
        assert stage.shape[1:] == (info['num_chs'], 32 // info['reduction'], 32 // info['reduction'])
        assert dict(network.named_modules())[info['module']] is not None
    only = network.forward_intermediates(IMAGES, indices=[-1], intermediates_only=True)
    assert len(only) == 1 and only[0].equal(features)
    assert len(network.forward_intermediates(IMAGES, indices=2)[1]) == 2


def test_classifiers_change(network):
    network.reset_classifier(3)
    assert network(IMAGES).shape == (2, 3) and network.num_classes == 3
    network.reset_classifier(0)
    assert network(IMAGES).shape == (2, network.num_features)


@pytest.mark.parametrize('name', NETWORKS)
def test_teachers_of_them_answer_at_the_taps(name):
    source = dict(type='vfd.TimmSource', **NETWORKS[name])
    taps = ('logits', 'pooled', 'stage.-1', 'stage.0')
    teacher = MODELS.build(dict(type='vfd.Teacher', source=source, checkpoint='random', taps=taps))
    answers = teacher(IMAGES)
    torch.testing.assert_close(answers['pooled'], answers['stage.-1'].mean((2, 3)))
    assert answers['logits'].shape == (2, 7) and answers['stage.0'].shape[0] == 2
    maps = MODELS.build(dict(type='vfd.Teacher', source=source, checkpoint='random', taps=('stage.-1',)))
    assert maps(IMAGES)['stage.-1'].shape == answers['stage.-1'].shape


@pytest.mark.parametrize('depth', [20, 110])
def test_resnets_of_a_depth(depth):
    with torch.device('meta'):
        network = timm.create_model(f'cifar_resnet{depth}')
    layers = sum(isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3) for m in network.modules())
    assert layers + 1 == depth and network.num_classes == 100


def test_a_cell_is_the_sum_of_its_edges():
    network = timm.create_model(**NETWORKS['nas_bench_201']).eval()
    cell, x = network.cells[0], torch.randn(2, 4, 8, 8)
    nodes = [x, *(torch.zeros_like(x) for _ in range(3))]
    for (target, source), op, layer in zip(EDGES, parse_cell(CELL), cell.layers, strict=True):
        if op != 'none':
            nodes[target] = nodes[target] + layer(nodes[source])
    torch.testing.assert_close(cell(x), nodes[3])


@pytest.mark.parametrize(
    'cell',
    [
        '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|',
        '|none~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|',
    ],
)
def test_a_dead_cell_is_zero(cell):
    network = timm.create_model('nas_bench_201', cell=cell, width=4, cells=1, num_classes=7).eval()
    assert not network.cells[0](torch.randn(2, 4, 8, 8)).any()
    assert network(IMAGES).isfinite().all()


def test_every_edge_runs_as_in_the_benchmark():
    """Proxies that count activations and statistics see nodes that nothing reads, too."""
    cell = '|none~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|'
    network = timm.create_model('nas_bench_201', cell=cell, width=4, cells=1, num_classes=7)
    ran = []
    for j, layer in enumerate(network.cells[0].layers):
        layer.register_forward_hook(lambda *_, j=j: ran.append(j))
    network.cells[0](torch.randn(2, 4, 8, 8))
    assert ran == [1, 2, 3]


@pytest.mark.parametrize(
    ('word', 'projected'),
    [
        ('SuperResK1K3K1(176,176,1,64,4)', True),  # also where channels and stride stay
        ('SuperResK1K5K1(176,80,2,16,1)', True),
        ('SuperResK3K3(176,176,1,64,4)', False),
        ('SuperResK3K3(176,80,1,16,2)', True),
        ('SuperResK3K3(176,176,2,64,4)', True),
    ],
)
def test_parameters_of_a_word_counted_by_hand(word, projected):
    kernel = 5 if 'K5' in word else 3
    given, out, _, inner, layers = map(int, word[word.index('(') + 1 : -1].split(','))

    def conv(before, after, side):  # without bias, with the two vectors of its batch norm
        return before * after * side**2 + 2 * after

    def unit(before):
        if 'K1K' in word:
            return conv(before, inner, 1) + conv(inner, inner, kernel) + conv(inner, out, 1)
        return conv(before, inner, kernel) + conv(inner, out, kernel)

    units = layers * (2 if 'K1K' in word else 1)
    expected = unit(given) + (units - 1) * unit(out)
    if projected:
        expected += given * out + out + 2 * out  # with a bias; 31,504 for the first word
    stem = 'SuperConvK3BNRELU(3,176,1,1)'
    network = timm.create_model('plainnet', structure=stem + word, num_classes=0)
    assert sum(p.numel() for p in network.block_list[1].parameters()) == expected
    # The analytic count knows one parameter of a batch norm's two, and none of the shortcut's.
    scales = sum(
        m.num_features for m in network.block_list[1].modules() if isinstance(m, torch.nn.BatchNorm2d)
    )
    assert analytic_params(parse_structure(word), 0) == expected - scales - out * projected + 1
