"""The one-pass preprocessors give what mmpretrain's give, to the last bit."""

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample

from vfd.datasets.preprocessors import normalize_bytes
from vfd.registry import MODELS

IMAGENET = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375]}


def both(kind, **settings):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return [MODELS.build({'type': f'{scope}.{kind}', **settings}) for scope in ('vfd', 'mmpretrain')]


def images(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def forward(preprocessor, inputs):
    copied = inputs.clone() if isinstance(inputs, torch.Tensor) else [image.clone() for image in inputs]
    return preprocessor({'inputs': copied, 'data_samples': [DataSample().set_gt_label(1)]}, True)['inputs']


@pytest.mark.parametrize('flip', [False, True])
def test_every_byte_in_every_channel(flip):
    every = torch.arange(256, dtype=torch.uint8).repeat(3).view(3, 16, 16)
    mean, std = (torch.tensor(IMAGENET[name]).view(3, 1, 1) for name in ('mean', 'std'))
    expected = ((every.flip(0) if flip else every).float() - mean) / std
    assert torch.equal(normalize_bytes(every, mean, std, flip), expected)
    assert torch.equal(normalize_bytes(every[None], mean, std, flip), expected[None])


@pytest.mark.parametrize('to_rgb', [True, False])
@pytest.mark.parametrize(
    'kind, inputs, settings',
    [
        ('ClsDataPreprocessor', images(3, 3, 9, 7), {}),
        ('ClsDataPreprocessor', images(3, 3, 9, 7), {'pad_size_divisor': 8, 'pad_value': 2}),
        ('ClsDataPreprocessor', [images(3, 9, 7), images(3, 8, 6)], {'pad_size_divisor': 4}),
        ('ClsDataPreprocessor', images(3, 3, 9, 7).float() / 3, {}),
        ('ClsDataPreprocessor', images(3, 3, 9, 8)[..., ::2], {}),
        ('SelfSupDataPreprocessor', images(2, 3, 9, 7), {}),
        ('SelfSupDataPreprocessor', [images(2, 3, 9, 7), images(2, 3, 5, 5)], {}),
    ],
)
def test_the_same_as_mmpretrain(kind, inputs, settings, to_rgb):
    ours, other = both(kind, **IMAGENET, **settings, to_rgb=to_rgb)
    for _ in range(2):  # nothing is left behind by the first call
        mine, expected = forward(ours, inputs), forward(other, inputs)
        for a, b in zip(*((x if isinstance(x, list) else [x]) for x in (mine, expected)), strict=True):
            assert a.dtype == torch.float32 and torch.equal(a, b)
    assert (ours._enable_normalize, getattr(ours, ours._flips)) == (True, to_rgb)


def test_without_normalisation_and_with_one_mean_for_all_channels():
    for settings in ({}, {'mean': [127.5], 'std': [60.0]}):
        ours, other = both('ClsDataPreprocessor', **settings, to_rgb=True)
        assert torch.equal(forward(ours, images(2, 3, 4, 4)), forward(other, images(2, 3, 4, 4)))


def test_an_error_leaves_the_settings_as_they_were():
    ours, _ = both('ClsDataPreprocessor', **IMAGENET, to_rgb=True)
    with pytest.raises(TypeError):
        ours({'inputs': images(1, 3, 4, 4), 'data_samples': 3})
    assert ours._enable_normalize and ours.to_rgb
