"""Features of content are consistent under shifts, features of places are not."""

from __future__ import annotations

import pytest
import torch

from vfd.errors import UserError
from vfd.evaluation.shift_consistency import shift_consistency

PATCH, CROP = 4, 24


@pytest.fixture
def images():
    return torch.randn(2, 3, 40, 44, generator=torch.Generator().manual_seed(0))


def content(crops):
    """The pixels of each patch."""
    return torch.nn.functional.unfold(crops, PATCH, stride=PATCH).transpose(1, 2)


def place(crops):
    """The same features for any image: they depend on the place alone."""
    count = (CROP // PATCH) ** 2
    return torch.randn(1, count, 16, generator=torch.Generator().manual_seed(1)).expand(len(crops), -1, -1)


def test_content_is_consistent(images):
    found = shift_consistency(content, images, CROP, PATCH)
    assert found.cosine == pytest.approx(1, abs=1e-6)
    assert found.match == 1
    assert found.centred_cosine > 0.9


def test_places_are_not(images):
    found = shift_consistency(place, images, CROP, PATCH)
    assert abs(found.cosine) < 0.2
    assert found.match < 0.2


def test_an_artifact_lowers_it(images):
    def with_artifact(crops):
        features = content(crops).clone()
        features[:, 7] = 30
        return features

    assert shift_consistency(with_artifact, images, CROP, PATCH).match < 1


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'crop_size': 25}, 'multiple'),
        ({'shifts': [(0, 0)]}, 'not'),
        ({'shifts': [(6, 0)]}, '0 to 5'),
        ({'shifts': [(5, 0)]}, 'need 44'),
    ],
)
def test_mistakes(images, change, message):
    settings = {'crop_size': CROP, 'patch_size': PATCH, **change}
    with pytest.raises(UserError, match=message):
        shift_consistency(content, images, **settings)
