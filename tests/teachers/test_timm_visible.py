"""Visible patches of timm's plain and rotary vision transformers, and Hiera's blocks."""

import pytest
import timm
import torch

from vfd.errors import UserError
from vfd.teachers import Teacher

# Learned positions; DINOv3's, EVA-02's and Perception Encoder's rotary ones; rotary ones of every block's own.
NETWORKS = {
    'test_vit': {},
    'vit_small_patch16_dinov3': {},
    'eva02_tiny_patch14_224': {'patch_size': 16},
    'vit_pe_core_tiny_patch16_384': {},
    'vit_small_patch16_rope_mixed_224': {},
}
PATCHES = 16


@pytest.fixture(params=NETWORKS)
def network(request, monkeypatch):
    torch.manual_seed(0)
    depth = {} if request.param == 'test_vit' else {'depth': 3}
    network = timm.create_model(
        request.param, img_size=64, num_classes=5, **depth, **NETWORKS[request.param]
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    monkeypatch.setattr(timm, 'create_model', lambda *args, **kwargs: network)
    return network


def teacher(*taps):
    return Teacher({'type': 'vfd.TimmSource', 'model_name': 'any'}, 'random', taps=taps)


def test_all_patches_in_order_change_nothing(network):
    images = torch.rand(2, 3, 64, 64)
    tapped = teacher('block.0', 'block.2', 'pooled', 'logits')
    everything = torch.arange(PATCHES).expand(2, -1)
    whole, gathered = tapped(images), tapped(images, ids_keep=everything)
    for tap in tapped.taps:
        torch.testing.assert_close(gathered[tap], whole[tap], rtol=1e-5, atol=1e-6)


def test_visible_patches_see_each_other_alone(network):
    """The same as timm's own run with all patches where attention to the dropped ones is masked, in float64."""
    source = teacher('block.0', 'block.2').source
    network.double()
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    keep = torch.stack([torch.randperm(PATCHES)[:5] for _ in range(2)])
    prefix = network.num_prefix_tokens
    rows = torch.cat([torch.arange(prefix).expand(2, -1), keep + prefix], dim=1)
    seen = torch.zeros(2, prefix + PATCHES, dtype=torch.bool).scatter_(1, rows, True)
    mask = seen[:, None, None, :].expand(-1, 1, prefix + PATCHES, -1)
    maps = network.forward_intermediates(
        images, attn_mask=mask, output_fmt='NLC', return_prefix_tokens=prefix > 0, intermediates_only=True
    )
    expected = [torch.cat(pair[::-1], dim=1) if prefix else pair for pair in maps]
    got = source.forward_taps(images, ('block.0', 'block.2'), ids_keep=keep)
    for tap, k in (('block.0', 0), ('block.2', 2)):
        wanted = expected[k].gather(1, rows[:, :, None].expand(-1, -1, expected[k].shape[-1]))
        torch.testing.assert_close(got[tap], wanted, rtol=1e-9, atol=1e-9)


def test_dropped_patches_and_later_blocks_do_not_run(network):
    tapped = teacher('block.1')
    runs = []
    for block in tapped.network.blocks:
        block.register_forward_pre_hook(lambda module, args: runs.append(args[0].shape[1]))
    tapped(torch.rand(1, 3, 64, 64), ids_keep=torch.tensor([[3, 1, 7]]))
    assert runs == [network.num_prefix_tokens + 3] * 2


def test_a_map_of_some_patches_is_refused(network):
    with pytest.raises(UserError, match=r'block\.<k>'):
        teacher('stage.0')(torch.rand(1, 3, 64, 64), ids_keep=torch.zeros(1, 1, dtype=torch.long))


def test_hieras_blocks_and_stages_are_numbered_apart():
    """Tokens of every block in the order of the image, together with the maps of the stages."""
    torch.manual_seed(0)
    source = {'type': 'vfd.TimmSource', 'model_name': 'hiera_tiny_224', 'img_size': 64}
    tapped = Teacher(source, 'random', taps=('block.1', 'stage.1', 'block.0', 'stage.0'))
    assert tapped.network.stage_ends[:2] == [0, 2] and len(tapped.network.blocks) == 3
    answers = tapped(torch.rand(1, 3, 64, 64))
    torch.testing.assert_close(answers['stage.0'].flatten(2).transpose(1, 2), answers['block.0'])
    assert answers['block.1'].shape == (1, 8 * 8, 192) and answers['stage.1'].shape == (1, 192, 8, 8)
