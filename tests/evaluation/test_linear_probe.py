import numpy as np
import pytest

from vfd.errors import UserError
from vfd.evaluation import fit_linear_probe


def clusters(classes, per_class, seed, spread=0.6):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 12)) * 2 + 5
    labels = np.repeat(np.arange(classes), per_class)
    return (centres[labels] + spread * rng.normal(size=(len(labels), 12))).astype(np.float32), labels


@pytest.mark.parametrize('classes', [2, 5])
def test_learns_separable_classes(classes):
    features, labels = clusters(classes, 8, 0)
    probe = fit_linear_probe(features, labels)
    unseen, truth = clusters(classes, 50, 1)
    assert probe.weight.shape == (classes, 12) and probe.bias.shape == (classes,)
    assert (probe.logits(unseen).argmax(1) == truth).mean() > 0.9
    assert probe.cv_accuracy > 0.9


def test_strength_is_the_one_of_the_smallest_log_loss():
    features, labels = clusters(4, 10, 0, spread=3.0)
    probe = fit_linear_probe(features, labels)
    assert set(probe.cv_log_loss) == {0.1, 1.0, 10.0, 100.0, 1000.0}
    assert probe.cv_log_loss[probe.strength] == min(probe.cv_log_loss.values())


def test_the_scale_of_the_features_is_folded_in():
    features, labels = clusters(3, 10, 0)
    one, thousand = fit_linear_probe(features, labels), fit_linear_probe(features * 1000, labels)
    assert one.strength == thousand.strength
    np.testing.assert_allclose(one.logits(features), thousand.logits(features * 1000), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('labels', [[0, 0, 0, 0], [0, 0, 1, 2], [0, 0, 2, 2]])
def test_too_few_labels_are_refused(labels):
    with pytest.raises(UserError, match='two labelled images'):
        fit_linear_probe(np.ones((4, 3)), np.array(labels))
