"""Zero-cost proxies and scorers: nothing is left behind in a network, seeds decide, unknown names are refused."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import vfd.backbones  # noqa: F401  (registers the networks)
from vfd.engine.seeding import seeded
from vfd.errors import UserError
from vfd.losses.sample_relations import sample_gram
from vfd.methods.diswot.networks import batch_statistics, compute_outputs, gaussian_init, linear_classifier
from vfd.methods.diswot.saliency import fisher
from vfd.methods.diswot.scoring import KD_LOSSES, QUIRKS, SCORERS, StudentScorer
from vfd.methods.diswot.zero_cost import ZERO_COST, zero_cost

TEACHER = {'type': 'vfd.TimmSource', 'model_name': 'cifar_resnet14', 'num_classes': 10}
STUDENT = {'type': 'mmpretrain.TimmClassifier', 'model_name': 'cifar_resnet8', 'num_classes': 10}


def batch(size: int = 8, side: int = 16, classes: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, side, side, generator=generator)
    return images, torch.randint(classes, (size,), generator=generator)


def test_scoring_leaves_a_network_as_it_was():
    network = timm.create_model('cifar_resnet8', num_classes=10)
    network.bn1.eval()
    network.fc.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    images, labels = batch()
    values, layers = zero_cost(network, images, labels)
    assert set(values) == set(ZERO_COST) and all(v == v for v in values.values())
    assert all(len(layer) == len(layers['snip']) for layer in layers.values())
    after = network.state_dict()
    assert all(before[name].equal(after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert modes == [module.training for module in network.modules()]
    assert all(p.grad is None for p in network.parameters()) and not network.fc.weight.requires_grad
    assert all(
        module.track_running_stats for module in network.modules() if isinstance(module, nn.BatchNorm2d)
    )


def test_the_network_is_put_back_after_an_error():
    network = timm.create_model('cifar_resnet8', num_classes=10).eval()
    before = network.bn1.running_mean.clone()
    with pytest.raises(RuntimeError, match='on purpose'), batch_statistics(network, update=True):
        compute_outputs(network, batch()[0])
        raise RuntimeError('on purpose')
    assert before.equal(network.bn1.running_mean) and not network.bn1.training


def test_dropout_is_off():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4))
    with batch_statistics(network):
        first, second = (network(torch.arange(8.0).view(2, 4)) for _ in range(2))
    assert first.equal(second) and network.training


def test_gaussian_weights_come_from_their_seed():
    first, second = (timm.create_model('cifar_resnet8', num_classes=10) for _ in range(2))
    gaussian_init(first, seed=3)
    gaussian_init(second, seed=3)
    assert all(a.equal(b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert abs(float(first.layer3[0].conv2.weight.std()) - 1) < 0.02
    assert not first.fc.bias.any() and first.bn1.weight.eq(1).all()


@pytest.fixture(scope='module')
def all_scores() -> dict[str, list[float]]:
    return StudentScorer(TEACHER, SCORERS, [batch()], seeds=(0, 1)).scores(STUDENT)


def test_every_scorer_gives_a_number_a_seed(all_scores):
    assert set(all_scores) == {*SCORERS} and {*KD_LOSSES, *QUIRKS} <= {*all_scores}
    assert all(len(values) == 2 and all(v == v for v in values) for values in all_scores.values())
    assert all_scores['sp'] == pytest.approx(all_scores['relation'])
    for together, *parts in (
        ('sum', 'semantic', 'relation'),
        ('quirk_benchmark_script', 'semantic', 'quirk_first_sample_pooled'),
    ):
        expected = [sum(values) for values in zip(*(all_scores[part] for part in parts), strict=True)]
        assert all_scores[together] == pytest.approx(expected)
    assert all_scores['sum'][0] != all_scores['sum'][1]


def test_a_score_depends_on_its_seed_alone(all_scores):
    scorer = StudentScorer(TEACHER, ['nwot', 'sum'], [batch()], seeds=(1,))
    torch.rand(3)
    scorer.scores({**STUDENT, 'model_name': 'cifar_resnet14'})
    again = scorer.scores(STUDENT)
    assert again['sum'][0] == all_scores['sum'][1] and again['nwot'][0] == all_scores['nwot'][1]


def test_a_teacher_of_another_width_can_be_compared_by_relation_only():
    teacher = {**TEACHER, 'width': 8}
    relation = StudentScorer(teacher, ['relation', 'kd'], [batch()], seeds=(0,)).scores(STUDENT)
    assert relation['relation'][0] < 0
    with pytest.raises(UserError, match=r'64 channels, the teacher 10 and 32.*"relation"'):
        StudentScorer(teacher, ['sum'], [batch()], seeds=(0,)).scores(STUDENT)


SIZE_32 = dict(img_size=32, patch_size=8)
NETWORKS = {
    'tokens': dict(model_name='test_vit', num_classes=10, **SIZE_32),
    'channels-last': dict(
        model_name='swin_tiny_patch4_window7_224', num_classes=10, img_size=32, embed_dim=24, window_size=4
    ),
    'map': dict(model_name='test_efficientnet', num_classes=10),
}


@pytest.mark.parametrize('layout', NETWORKS)
def test_channels_are_channels_in_every_layout(layout):
    """(B, H, W, C) and tokens (B, N, C) are turned; relations do not change by that."""
    network = timm.create_model(**NETWORKS[layout]).eval()
    images, _ = batch(4, 32)
    with torch.no_grad():
        features = compute_outputs(network, images).features
        raw = network.forward_features(images)
    assert features.shape[:2] == (4, network.num_features) and features.numel() == raw.numel()
    torch.testing.assert_close(sample_gram(features), sample_gram(raw))
    torch.testing.assert_close(
        features.flatten(2).mean(2),
        raw.mean(1) if raw.ndim == 3 else raw.mean((1, 2) if layout[0] == 'c' else (2, 3)),
    )


@pytest.mark.parametrize('layout', NETWORKS)
def test_every_network_scored_against_itself(layout):
    """Both are drawn from one seed, so that distances of maps and vectors vanish."""
    config = NETWORKS[layout]
    scores = ['relation', 'ickd', 'quirk_first_sample_map', 'at', 'nst', 'fitnet', 'cc', 'sp']
    student = {'type': 'mmpretrain.TimmClassifier', **config}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('vfd.methods.diswot.scoring.seeded', lambda seed: seeded(0))
        scorer = StudentScorer({'type': 'vfd.TimmSource', **config}, scores, [batch(4, 32)], seeds=(0,))
        found = scorer.scores(student)
    assert all(abs(values[0]) < 1e-9 for values in found.values()), found


def test_fisher_sums_over_tokens_before_it_squares():
    """A linear layer on (B, N, C) and the 1x1 convolution on (B, C, N, 1) are the same layer."""
    torch.manual_seed(0)
    linear, conv = nn.Linear(3, 5), nn.Conv2d(3, 5, 1)
    conv.load_state_dict({'weight': linear.weight[:, :, None, None], 'bias': linear.bias})
    images, labels = torch.randn(4, 3, 2, 3), torch.tensor([0, 1, 2, 3])

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear

        def forward(self, x):
            return self.layer(x.flatten(2).transpose(1, 2)).square().mean(1)

    pooled = nn.Sequential(conv, Square(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torch.testing.assert_close(fisher(Tokens(), images, labels), fisher(pooled, images, labels))


class Square(nn.Module):
    def forward(self, x):
        return x.square()


@pytest.mark.parametrize(
    ('student', 'score', 'message'),
    [
        (dict(width=8), 'fitnet', r'fitnet needs equal widths: student .8, 32., teacher .8, 64.'),
        (dict(width=8), 'cc', 'cc needs equal widths'),
        (dict(width=8), 'kdsvd', 'kdsvd needs equal widths'),
        (dict(width=8), 'ickd', 'channel by channel'),
        (dict(width=8), 'quirk_first_sample_map', '32 of the student, 64 of the teacher'),
        (dict(model_name='test_efficientnet'), 'at', 'stage by stage: the student has 5, the teacher 3'),
        (dict(num_classes=12), 'kd', r'student .*12'),
    ],
)
def test_losses_that_cannot_compare_say_so(student, score, message):
    with pytest.raises(UserError, match=message):
        StudentScorer(TEACHER, [score], [batch()], seeds=(0,)).scores({**STUDENT, **student})


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(scorers=['semantics']), 'scorer "semantics" is unknown .did you mean "semantic"'),
        (dict(scorers=['sum'], init='gausian'), "init='gausian'"),
        (dict(scorers=['sum'], batches=[]), 'at least one batch'),
        (dict(scorers=['sum'], batches=[batch(classes=1000)]), 'labels from .*10 classes'),
        (dict(scorers=['sum'], teacher={**TEACHER, 'num_classes': 0}), 'no classifier'),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(UserError, match=message):
        StudentScorer(**{'teacher': TEACHER, 'batches': [batch()], 'seeds': (0,), **arguments})


def test_wrong_names_and_labels_of_proxies():
    network, (images, labels) = timm.create_model('cifar_resnet8', num_classes=10), batch()
    with pytest.raises(UserError, match=r'"snipp" is unknown .did you mean "snip"'):
        zero_cost(network, images, labels, ['snipp'])
    with pytest.raises(UserError, match='labels from 0 to 10'):
        zero_cost(network, images, torch.tensor([0, 10] * 4), ['snip'])
    with pytest.raises(UserError, match='labels from -1'):
        zero_cost(network, images, torch.full((8,), -1), ['epe_nas'])
    with pytest.raises(UserError, match='100 classes or fewer, the network has 101'):
        zero_cost(timm.create_model('cifar_resnet8', num_classes=101), images, labels, ['epe_nas'])
    assert set(zero_cost(network, images, torch.full((8,), -1), ['jacov'])[0]) == {'jacov'}
    with pytest.raises(UserError, match='EfficientNet has none'):
        zero_cost(timm.create_model('test_efficientnet'), images, labels, ['nwot'])
    with pytest.raises(UserError, match='VisionTransformer has none'):
        zero_cost(timm.create_model('test_vit', **SIZE_32), batch(4, 32)[0], labels[:4], ['bn_score'])
    with pytest.raises(UserError, match='several maps'):
        compute_outputs(timm.create_model('crossvit_tiny_240'), batch(1, 240)[0])
    with pytest.raises(UserError, match='cannot be scored'):
        compute_outputs(nn.Linear(3, 3), images)
    with pytest.raises(UserError, match='no linear classifier'):
        linear_classifier(nn.Linear(3, 3))


MM_STUDENT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18, base_channels=4, stem_channels=4),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=32),
)


def test_the_default_initialisation_of_mmpretrain_is_that_of_its_config(monkeypatch):
    """Its networks are initialised by a call of their own, which torch's draws at building stand for otherwise."""
    networks = []
    monkeypatch.setattr(
        StudentScorer, '_scores', lambda self, network, number: networks.append(network) or {'nwot': 0.0}
    )
    constant = dict(type='Constant', layer='Linear', val=0.25)
    student = {**MM_STUDENT, 'head': {**MM_STUDENT['head'], 'init_cfg': constant}}
    StudentScorer(TEACHER, ['nwot'], [batch()], seeds=(0,), init='default').scores(student)
    assert networks[0].head.fc.weight.eq(0.25).all()


def test_classifiers_of_mmpretrain_answer_as_well():
    student = MM_STUDENT
    teacher = {'type': 'vfd.TimmSource', 'model_name': 'cifar_resnet8', 'num_classes': 10, 'width': 8}
    scores = StudentScorer(teacher, ['sum', 'relation', 'snip'], [batch()], seeds=(0,)).scores(student)
    assert scores['sum'][0] < scores['relation'][0] < 0 < scores['snip'][0]
