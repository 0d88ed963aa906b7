"""Every network family of timm as teacher, each tap against timm's own calls.

``timm_networks.json`` names the smallest network of every class of every module of ``timm.models``, the image size and
the arguments that keep it small; ``choose_timm_networks.py`` writes it.
"""

import json
from pathlib import Path
from pkgutil import iter_modules

import pytest
import timm
import torch

from vfd.errors import UserError
from vfd.teachers import Teacher

NETWORKS = json.loads((Path(__file__).parent / 'timm_networks.json').read_text())
EVERY = pytest.mark.parametrize('entry', NETWORKS, ids=[entry['model'] for entry in NETWORKS])

# Encoders of language models: timm gives them neither a classifier nor a pooled feature.
NOT_POOLED = {
    'deepseek_vit_412m_enc': NotImplementedError,
    'gemma4_vit_167m_enc': NotImplementedError,
    'mobilenetv5_300m_enc': TypeError,
    'qwen3_vit_88m_enc': NotImplementedError,
}
# Networks of one kind of block, whose tokens after every block timm gives.
WITH_BLOCKS = {
    'beit_base_patch16_224', 'cait_xxs24_224', 'deepseek_vit_412m', 'deepseek_vit_412m_enc', 'deit_tiny_patch16_224',
    'deit_tiny_distilled_patch16_224', 'gemma4_vit_167m', 'gemma4_vit_167m_enc', 'gmlp_ti16_224', 'hiera_tiny_224',
    'naflexvit_base_patch16_parfac_gap', 'qwen3_vit_88m', 'qwen3_vit_88m_enc', 'sam2_hiera_tiny',
    'samvit_base_patch16_224', 'test_vit', 'test_vit_relpos', 'tnt_s_legacy_patch16_224', 'vit_tiny_r_s16_p8_224',
    'vit_tiny_patch16_dinov3_qkvb', 'vitamin_small_224', 'xcit_nano_12_p8_224',
}  # fmt: skip


def build(entry):
    """A network and an image; noise on the weights, many of which are zero or one when they are new."""
    torch.manual_seed(0)
    network = timm.create_model(entry['model'], **entry['kwargs']).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return network, torch.rand(1, 3, entry['size'], entry['size'])


def timm_answers(network, entry, images):
    """What timm's public calls give, by tap; and the tokens that leave the first and the last block, by a hook."""
    seen = {}
    if entry['model'] in WITH_BLOCKS and 'hiera' not in entry['model']:
        blocks = getattr(network, 'encoder', network).blocks
        for tap, block in (('block.0', blocks[0]), ('block.-1', blocks[-1])):
            block.register_forward_hook(lambda module, args, output, tap=tap: seen.__setitem__(tap, output))
    features = network.forward_features(images)
    seen = {
        tap: tokens[1] if isinstance(tokens, tuple) else tokens for tap, tokens in seen.items()
    }  # TNT: pixels too
    expected = {tap: tokens if tokens.ndim == 3 else tokens.flatten(1, 2) for tap, tokens in seen.items()}
    if 'hiera' in entry['model']:
        maps = network.forward_intermediates(images, coarse=False, intermediates_only=True, output_fmt='NHWC')
        expected = {'block.0': maps[0].flatten(1, 2), 'block.-1': maps[-1].flatten(1, 2)}
    if entry['model'] not in NOT_POOLED:
        expected['pooled'] = network.forward_head(features, pre_logits=True)
        expected['logits'] = network(images)
    maps = network.forward_intermediates(images, intermediates_only=True)
    return {**expected, 'stage.0': maps[0], 'stage.-1': maps[-1]}


@pytest.mark.slow
@EVERY
@torch.inference_mode()
def test_taps_are_timms_answers(entry, monkeypatch):
    network, images = build(entry)
    expected = timm_answers(network, entry, images)
    assert ('block.0' in expected) is (entry['model'] in WITH_BLOCKS)
    monkeypatch.setattr(timm, 'create_model', lambda *args, **kwargs: network)  # with the same weights
    source = {'type': 'vfd.TimmSource', 'model_name': entry['model'], **entry['kwargs']}
    # all of them at once; then the classifier is cut off; then all but the layers before the first map
    for taps in (list(expected), [tap for tap in expected if tap not in ('logits', 'block.-1')], ['stage.0']):
        teacher = Teacher(source, 'random', taps=taps)
        answers = teacher(images)
        for tap in taps:
            torch.testing.assert_close(answers[tap], expected[tap], rtol=1e-4, atol=1e-5)
            assert teacher.source.channels(tap) == answers[tap].shape[-1 if answers[tap].ndim < 4 else 1]


def test_every_module_of_timm_is_in_the_table():
    modules = {info.name for info in iter_modules(timm.models.__path__)}
    assert {entry['module'] for entry in NETWORKS} == {
        name for name in modules if timm.list_models(module=name)
    }


@pytest.mark.parametrize('entry', [e for e in NETWORKS if e['model'] in NOT_POOLED], ids=lambda e: e['model'])
def test_what_timm_does_not_have_is_refused(entry):
    """Every network listed as unserved has no such call in timm either."""
    network, images = build(entry)
    source = {'type': 'vfd.TimmSource', 'model_name': entry['model'], **entry['kwargs']}
    assert not network.num_classes
    with pytest.raises(UserError, match=r'no classifier.*"pooled"'):
        Teacher(source, 'random', taps=['logits'])
    with pytest.raises(NOT_POOLED[entry['model']]):
        network.forward_head(network.forward_features(images), pre_logits=True)
    with pytest.raises(UserError, match='stage'):
        Teacher(source, 'random', taps=['pooled'])(images)


@pytest.mark.parametrize('name', ['convit_tiny', 'swin_tiny_patch4_window7_224', 'test_convnext'])
def test_networks_without_one_kind_of_block_have_no_block_tap(name):
    with pytest.raises(UserError, match=r'has the taps logits, pooled, stage\.<k>'):
        Teacher({'type': 'vfd.TimmSource', 'model_name': name}, 'random', taps=['block.0'])
