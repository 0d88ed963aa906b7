"""A teacher's fingerprint tells apart whatever changes its answers, option by option."""

import inspect
import json
from functools import partial

import open_clip
import pytest
import timm
import torch
from torch import nn

from vfd.methods.ph_reg import DenseSource
from vfd.registry import MODELS
from vfd.teachers import Teacher, sources
from vfd.teachers.settings import plain, source_settings

ALL = [getattr(sources, name) for name in sources.__all__ if name not in ('Source',)] + [DenseSource]
ELSEWHERE = {'taps', 'pretrained'}  # in the fingerprint under names of their own


def options():
    for kind in ALL:
        for name, parameter in inspect.signature(kind).parameters.items():
            if name not in ELSEWHERE:
                yield pytest.param(kind, name, parameter.kind, id=f'{kind.__name__}-{name}')


@pytest.mark.parametrize(('kind', 'name', 'how'), options())
def test_every_option_of_every_source_counts(kind, name, how):
    """Also those that a source gains later: they are read from its signature."""

    def settings(value):
        given = {'some_option': value} if how is inspect.Parameter.VAR_KEYWORD else {name: value}
        return source_settings({'type': kind, **given})

    assert settings('one') == settings('one') != settings('other')
    assert settings({'a': [1, {'b': 2}]}) != settings({'a': [1, {'b': 3}]})
    assert settings(['a', 'b']) != settings(['b', 'a'])


def test_types_by_name_and_by_class_are_the_same():
    by_name = source_settings({'type': 'vfd.TimmSource', 'model_name': 'x'})
    assert by_name == source_settings({'type': sources.TimmSource, 'model_name': 'x'})
    assert by_name['model_name'] == 'x' and not ELSEWHERE & by_name.keys()


def test_plain_values_are_json_and_the_same_in_every_process():
    def local():
        pass

    value = {
        'act_layer': nn.GELU,
        'norm_layer': partial(nn.LayerNorm, eps=1e-6),
        'dtype': torch.float16,
        'sizes': (1, 2),
        'flags': {'b', 'a'},
        'tensor': torch.tensor([1.0]),
        'module': nn.Identity(),
        'object': object(),
        'function': local,
        'none': None,
    }
    made = plain(value)
    assert json.loads(json.dumps(made)) == made and ' at 0x' not in json.dumps(made)
    assert plain({**value, 'act_layer': nn.ReLU}) != made
    assert plain({**value, 'norm_layer': partial(nn.LayerNorm, eps=1e-5)}) != made


# --- whole teachers: the weights stay, one thing changes

VIT = dict(type='vfd.TimmSource', model_name='test_vit', num_classes=5, img_size=32)


@pytest.fixture(scope='module')
def vit_file(tmp_path_factory):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'vit.safetensors'
    save_file(timm.create_model('test_vit', num_classes=5, img_size=32).state_dict(), path)
    return str(path)


def fingerprint(source, checkpoint, **options):
    made = Teacher({**source}, checkpoint, **options).fingerprint()
    assert json.loads(json.dumps(made)) == made
    return made


@pytest.mark.parametrize(
    ('change', 'key'),
    [
        (dict(act_layer='relu'), 'settings'),
        (dict(act_layer=nn.ReLU), 'settings'),
        (dict(norm_layer=partial(nn.LayerNorm, eps=1e-3)), 'settings'),
        (dict(dynamic_img_size=True), 'settings'),
        (dict(img_size=64), 'settings'),
    ],
)
def test_options_that_leave_the_weights_alone(vit_file, change, key):
    torch.manual_seed(0)
    one, other = fingerprint(VIT, vit_file), fingerprint({**VIT, **change}, vit_file, resize_pos_embed=True)
    assert one[key] != other[key]


@pytest.mark.parametrize(
    'change',
    [
        dict(taps=('pooled',)),
        dict(input_size=64),
        dict(dtype='float32'),
        dict(dtype='bfloat16'),
        dict(bn='train'),
    ],
)
def test_options_of_the_teacher(vit_file, change):
    (name,) = change
    one, other = fingerprint(VIT, vit_file), fingerprint(VIT, vit_file, **change)
    assert one[name] != other[name] and one == fingerprint(VIT, vit_file)


def test_two_poolings_are_two_teachers(tmp_path):
    """Answers differ, tensors do not."""
    source = dict(type='vfd.TimmSource', model_name='test_resnet', num_classes=5)
    network = timm.create_model('test_resnet', num_classes=5)
    torch.save(network.state_dict(), tmp_path / 'cnn.pth')
    average, largest = (
        Teacher({**source, 'global_pool': pool}, str(tmp_path / 'cnn.pth')) for pool in ('avg', 'max')
    )
    images = torch.rand(1, 3, 128, 128)
    assert not torch.allclose(average(images)['logits'], largest(images)['logits'])
    assert average.weights_sha256 == largest.weights_sha256
    assert average.fingerprint() != largest.fingerprint()


def test_class_names_and_prompts_are_part_of_a_teacher(tmp_path):
    (tmp_path / 'vfd-fingerprint-clip.json').write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, '
        '"head_width": 32}, "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, '
        '"layers": 1}}'
    )
    open_clip.add_model_config(tmp_path)
    torch.save(open_clip.create_model('vfd-fingerprint-clip').state_dict(), tmp_path / 'clip.pt')
    base = dict(type='vfd.OpenCLIPSource', model_name='vfd-fingerprint-clip', class_names=['cat', 'dog'])

    def made(**change):
        return fingerprint({**base, **change}, str(tmp_path / 'clip.pt'), taps=('logits',))

    one = made()
    for change in (
        dict(class_names=['dog', 'cat']),
        dict(class_names=['cat', 'cow']),
        dict(prompt='a drawing of a {}.'),
        dict(tag='laion'),
    ):
        other = made(**change)
        assert one['weights_sha256'] == other['weights_sha256'] and one != other, change


MAE = dict(arch=None, embed_dim=12, depth=2, num_heads=2, img_size=16, patch_size=8)


@pytest.mark.parametrize('change', [dict(num_heads=3), dict(patch_size=4, img_size=8)])
def test_networks_of_a_masked_autoencoder(change):
    source = dict(type='vfd.MAESource', **MAE)
    one, other = (source_settings({**source, **some}) for some in ({}, change))
    assert one != other
    built = Teacher({k: v for k, v in source.items() if v is not None}, 'random', taps=('latent',))
    assert built.fingerprint()['settings']['network']['num_heads'] == 2


def test_normalisation_of_a_bare_backbone():
    source = dict(
        type='vfd.MMSource',
        model=dict(type='mmpretrain.ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
        mean=[1, 2, 3],
        std=[1, 1, 1],
    )
    torch.manual_seed(0)
    one = fingerprint(source, 'random', taps=('stage.0',))
    torch.manual_seed(0)
    other = fingerprint({**source, 'mean': [1, 2, 4]}, 'random', taps=('stage.0',))
    assert one['weights_sha256'] == other['weights_sha256'] and one['mean'] != other['mean']
    assert one['settings']['model']['depth'] == 18


def test_a_source_of_a_user_needs_nothing_more():
    @MODELS.register_module(name='ToySourceForFingerprints', force=True)
    class Toy:
        name, num_classes, normalization = 'toy', None, None

        def __init__(self, taps=('a',), pretrained=False, temperature=1.0, **more):
            self.network = nn.Linear(1, 1)

        def forward_taps(self, images, taps):
            return {}

    try:
        source = dict(type='vfd.ToySourceForFingerprints')
        one, two, three = (
            Teacher({**source, **some}, 'random', taps=('a',)).settings
            for some in ({}, {'temperature': 2.0}, {'depth': 3})
        )
        assert one == {'temperature': 1.0, 'more': {}}
        assert two['temperature'] == 2.0 and three['more'] == {'depth': 3}
    finally:
        MODELS._module_dict.pop('ToySourceForFingerprints')
