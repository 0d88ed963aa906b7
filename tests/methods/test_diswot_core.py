"""DisWOT's metrics: closed forms against the plain ones, what they do not depend on, and what they refuse."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F

import vfd.backbones  # noqa: F401  (registers the networks)
from vfd.errors import UserError
from vfd.losses.sample_relations import similarity_preserving
from vfd.methods.diswot import core
from vfd.methods.diswot.networks import batch_statistics, compute_outputs, gaussian_init


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix_semantic(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    ours, theirs = (F.normalize(g[:, :, None] * g[:, None, :], dim=2) for g in (student, teacher))
    return (theirs - ours).square().sum() / student.numel()


@pytest.mark.parametrize('cell', [False, True])
def test_closed_form_gradient_is_that_of_autograd(cell):
    name = (
        {'model_name': 'nas_bench_201', 'width': 4, 'cells': 1} if cell else {'model_name': 'cifar_resnet8'}
    )
    if cell:
        name['cell'] = '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|'
    network = timm.create_model(**name, num_classes=7).double()
    gaussian_init(network, seed=1)
    images, labels = drawn(6, 3, 16, 16), torch.tensor([0, 3, 3, 6, 1, 0])
    with batch_statistics(network):
        F.cross_entropy(network(images), labels).backward()
        with torch.inference_mode():
            outputs = compute_outputs(network, images)
    ours = core.classifier_gradient(outputs.logits, outputs.pooled, labels)
    reference = network.get_classifier().weight.grad
    assert (ours - reference).abs().max() <= 1e-6 * reference.abs().max()


@pytest.mark.parametrize('scale', [1.0, 1e-3, 1e-6, 1e-8, 1e-15, 1e-150, 0.0])
def test_closed_form_semantic_distance_is_that_of_the_matrices(scale):
    """Down to where every row is shorter than the epsilon, and with rows of zeros on one or both sides."""
    student, teacher = drawn(7, 5), drawn(7, 5, seed=1)
    student[1:4] *= scale
    teacher[3:6] *= scale
    student[6] = teacher[6] = student[2, 1] = 0
    ours, reference = core.semantic_distance(student, teacher), matrix_semantic(student, teacher)
    assert ours.isfinite() and abs(ours - reference) <= 1e-12 * reference.abs()


def test_a_network_is_at_no_distance_from_itself():
    network = timm.create_model('cifar_resnet8', num_classes=5).double()
    labels = torch.arange(5)
    with batch_statistics(network), torch.inference_mode():
        outputs = compute_outputs(network, drawn(5, 3, 16, 16))
        gradient = core.classifier_gradient(outputs.logits, outputs.pooled, labels)
        distance = core.score(
            core.semantic_distance(gradient, gradient),
            similarity_preserving(outputs.features, outputs.features),
        )
    assert abs(distance) < 1e-14


def test_relation_ignores_rotations_and_the_scale_of_each_network():
    student, teacher = drawn(6, 3, 4, 4), drawn(6, 5, 2, 2, seed=1)
    reference = similarity_preserving(student, teacher)
    rotation = torch.linalg.qr(drawn(48, 48, seed=2)).Q
    rotated = (student.flatten(1) @ rotation).view_as(student)
    for ours, theirs in ((rotated, teacher), (5 * student, 0.1 * teacher)):
        torch.testing.assert_close(similarity_preserving(ours, theirs), reference, rtol=1e-12, atol=0)


def test_semantic_distance_ignores_the_scale_of_gradients_and_the_order_of_channels():
    student, teacher = drawn(7, 5), drawn(7, 5, seed=1)
    reference = core.semantic_distance(student, teacher)
    order = torch.tensor([3, 1, 4, 0, 2])
    factors = torch.rand(7, 1, dtype=torch.float64) + 0.5
    for ours, theirs in ((factors * student, 2 * teacher), (student[:, order], teacher[:, order])):
        torch.testing.assert_close(core.semantic_distance(ours, theirs), reference, rtol=1e-12, atol=0)
    assert abs(core.semantic_distance(student[:, order], teacher) - reference) > 1e-3


@pytest.mark.parametrize('labels', [[0, 5], [-1, 0]])
def test_labels_out_of_range_are_named(labels):
    with pytest.raises(UserError, match=r'labels from .*5 classes.*"relation"'):
        core.classifier_gradient(drawn(2, 5), drawn(2, 3), torch.tensor(labels))


@pytest.mark.parametrize('shape', [(6, 5), (7, 4)])
def test_other_classes_or_widths_are_refused_and_the_relation_is_offered(shape):
    with pytest.raises(UserError, match=r'7 classes and 5 channels.*"relation"'):
        core.semantic_distance(drawn(7, 5), drawn(*shape))


def test_the_first_sample_quirk_needs_equal_widths():
    with pytest.raises(UserError, match='compares channels: 3 of the student, 4'):
        core.first_sample_distance(drawn(2, 3, 4, 4), drawn(2, 4, 4, 4))


def test_gradients_that_add_up_change_nothing_but_the_direction():
    student, teachers = drawn(7, 5), [drawn(7, 5, seed=i) for i in (1, 2)]
    ours = core.accumulated_semantic_distance(student, teachers)
    torch.testing.assert_close(ours, core.semantic_distance(student, teachers[0] + teachers[1]))
