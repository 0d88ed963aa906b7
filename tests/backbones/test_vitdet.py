"""ViTDet's backbone and pyramid: equal to timm's SAM encoder, any size, and where the weights come from."""

from __future__ import annotations

import json

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from vfd.backbones import MaskedAutoencoder, SimpleFeaturePyramid, ViTDet
from vfd.errors import UserError

SMALL = {
    'embed_dim': 24,
    'depth': 8,
    'num_heads': 2,
    'patch_size': 8,
    'img_size': 72,
    'pretrain_img_size': 32,
    'window_size': 4,
}


def vitdet(**changes) -> ViTDet:
    """A small network whose relative positions are not zero."""
    torch.manual_seed(0)
    model = ViTDet(**{**SMALL, **changes})
    for name, parameter in model.named_parameters():
        if 'rel_pos' in name:
            nn.init.normal_(parameter, std=0.5)
    return model.eval()


# --------------------------------------------------------------------------------------------------------- network


@pytest.mark.parametrize('depth', [8, 12, 24])
def test_the_last_block_of_each_quarter_attends_globally(depth):
    model = ViTDet(**{**SMALL, 'depth': depth})
    assert model.global_blocks == tuple(depth // 4 * k - 1 for k in (1, 2, 3, 4))
    assert [k for k, block in enumerate(model.blocks) if not block.window_size] == list(model.global_blocks)
    lengths = [len(block.attn.rel_pos_h) for block in model.blocks]
    assert set(lengths) == {2 * 4 - 1, 2 * 9 - 1}  # windows of 4, images of 9 patches


def test_published_shapes():
    with torch.device('meta'):
        model = ViTDet(arch='small')
    assert model.global_blocks == (2, 5, 8, 11)
    assert model.pos_embed.shape == (1, 197, 384)
    assert model.blocks[0].attn.rel_pos_h.shape == (27, 64)
    assert model.blocks[2].attn.rel_pos_w.shape == (127, 64)


def test_drop_path_rises_linearly_and_drops_images():
    model = ViTDet(**SMALL, drop_path_rate=0.7)
    rates = [getattr(block.drop_path1, 'drop_prob', 0.0) for block in model.blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.7, 8))
    model.train()
    block = model.blocks[-2]
    block.drop_path1.drop_prob, block.drop_path2 = 0.5, nn.Identity()
    nn.init.zeros_(block.mlp.fc2.weight)
    torch.manual_seed(1)
    tokens = torch.randn(8, 8, 8, 24)
    changed = (block(tokens) != tokens).flatten(1)
    assert torch.equal(changed.any(1), changed.all(1))  # all windows of an image, or none
    assert 0 < changed.any(1).sum() < 8


def test_new_weights():
    model = ViTDet(**SMALL)
    assert all(not p.any() for name, p in model.named_parameters() if 'rel_pos' in name)
    assert 0.01 < model.blocks[0].attn.qkv.weight.std() < 0.03
    assert 0.01 < model.pos_embed.std() < 0.03


@pytest.mark.parametrize('size', [(72, 72), (40, 64), (32, 32), (8, 24)])
def test_any_size_that_patches_divide(size):
    model = vitdet()
    (feature,) = model(torch.randn(2, 3, *size))
    assert feature.shape == (2, 24, size[0] // 8, size[1] // 8)
    assert feature.isfinite().all()


def test_images_do_not_see_each_other_across_padded_windows():
    model = vitdet()
    images = torch.randn(2, 3, 40, 56)  # 5 x 7 patches, windows of 4
    alone = torch.cat([model(image[None])[0] for image in images])
    torch.testing.assert_close(model(images)[0], alone, rtol=1e-4, atol=1e-5)


def test_a_size_that_patches_do_not_divide_is_refused():
    with pytest.raises(UserError, match=r'70x64 pixels.*patches of 8.*pad_size_divisor'):
        vitdet()(torch.zeros(1, 3, 70, 64))


def test_position_drops_the_class_entry_and_is_resized_without_antialiasing():
    model = vitdet()
    patches = model.pos_embed[:, 1:].unflatten(1, (4, 4))
    assert torch.equal(model.position((4, 4)), patches)
    expected = F.interpolate(patches.permute(0, 3, 1, 2), (5, 8), mode='bicubic', align_corners=False)
    torch.testing.assert_close(model.position((5, 8)), expected.permute(0, 2, 3, 1))
    with torch.no_grad():
        model.pos_embed[:, 0] += 100
    assert torch.equal(model.position((4, 4)), patches)


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'img_size': 70}, 'img_size=70'),
        ({'pretrain_img_size': 4}, 'pretrain_img_size=4'),
        ({'depth': 3}, 'depth=3'),
        ({'num_heads': 5}, 'num_heads=5'),
        ({'arch': 'smal'}, 'small'),
    ],
)
def test_numbers_that_do_not_fit(changes, text):
    with pytest.raises(UserError, match=text):
        ViTDet(**{**SMALL, **changes})


# ------------------------------------------------------------------------------------------------------------ timm


@pytest.mark.parametrize('size', [(72, 72), (72, 40)])
def test_timm_builds_the_same_network(size):
    model = vitdet()
    name, arguments, state = model.timm_form()
    network = timm.create_model(name, **json.loads(json.dumps(arguments))).eval()
    network.load_state_dict(state)  # complete
    assert all(
        block.norm1.eps == ours.norm1.eps for block, ours in zip(network.blocks, model.blocks, strict=True)
    )
    images = torch.randn(2, 3, *size)
    if size == (72, 72):
        theirs = network.forward_intermediates(images, intermediates_only=True)[-1]
    else:  # timm resizes positions with another filter; give it ours
        network.pos_embed = nn.Parameter(model.position((9, 5)))
        theirs = network.forward_intermediates(images, intermediates_only=True)[-1]
    torch.testing.assert_close(model(images)[0], theirs, rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------------------------- checkpoints


def pretrained(img_size: int = 32, depth: int = 8, seed: int = 3) -> MaskedAutoencoder:
    torch.manual_seed(seed)
    return MaskedAutoencoder(
        embed_dim=24, depth=depth, num_heads=2, patch_size=8, img_size=img_size,
        decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2,
    )  # fmt: skip


def save(path, encoder: nn.Module, prefix: str = 'student.', container: str = 'state_dict'):
    torch.save({container: {prefix + name: value for name, value in encoder.state_dict().items()}}, path)
    return path


@pytest.mark.parametrize(('prefix', 'container'), [('student.', 'state_dict'), ('', 'model')])
def test_starts_from_a_pretraining_when_training_starts(tmp_path, prefix, container):
    encoder = pretrained()
    path = save(tmp_path / 'generic.pth', encoder, prefix, container)
    model = ViTDet(**SMALL, checkpoint=path)
    assert not torch.equal(model.pos_embed, encoder.pos_embed)
    model.init_weights()
    for name, value in model.state_dict().items():
        if 'rel_pos' in name:
            assert not value.any()
        else:
            assert torch.equal(value, encoder.state_dict()[name]), name
    with torch.no_grad():
        model.pos_embed.zero_()
    model.init_weights()  # a second call would undo training
    assert not model.pos_embed.any()


def test_a_file_of_a_shallower_network_is_refused(tmp_path):
    path = save(tmp_path / 'shallow.pth', pretrained(depth=4))
    with pytest.raises(UserError, match=r'Missing .* blocks\.4\.'):
        ViTDet(**SMALL, checkpoint=path).init_weights()


def test_a_position_table_of_another_grid_names_the_setting(tmp_path):
    path = save(tmp_path / 'large.pth', pretrained(img_size=64))
    with pytest.raises(UserError, match=r'65 entries, ViTDet of 17: set pretrain_img_size .*now 32'):
        ViTDet(**SMALL, checkpoint=path).init_weights()
    model = ViTDet(**{**SMALL, 'pretrain_img_size': 64}, checkpoint=path)
    model.init_weights()
    assert model.position((9, 9)).shape == (1, 9, 9, 24)


# --------------------------------------------------------------------------------------------------------- pyramid


@pytest.mark.parametrize(('size', 'levels'), [((8, 8), 5), ((6, 10), 4), ((7, 5), 6)])
def test_pyramid_levels(size, levels):
    height, width = size
    neck = SimpleFeaturePyramid(16, out_channels=12, num_outs=levels)
    maps = neck((torch.randn(2, 16, height, width),))
    sizes = [(4 * height, 4 * width), (2 * height, 2 * width), size, (height // 2, width // 2)]
    for _ in range(levels - 4):
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    assert [tuple(map_.shape) for map_ in maps] == [(2, 12, *size) for size in sizes]
    for map_ in maps:  # layer norm over channels comes last
        torch.testing.assert_close(map_.mean(1), torch.zeros_like(map_[:, 0]), rtol=0, atol=1e-4)


def test_pyramid_is_the_published_one():
    """Layer for layer, written once more."""
    torch.manual_seed(0)
    neck = SimpleFeaturePyramid(8, out_channels=6)
    x = torch.randn(1, 8, 4, 4)
    up = neck.fpn1
    x4 = F.conv_transpose2d(x, up[0].weight, up[0].bias, stride=2)
    x4 = F.layer_norm(x4.permute(0, 2, 3, 1), (4,), up[1].weight, up[1].bias, 1e-6).permute(0, 3, 1, 2)
    x4 = F.conv_transpose2d(F.gelu(x4), up[3].weight, up[3].bias, stride=2)
    x2 = F.conv_transpose2d(x, neck.fpn2[0].weight, neck.fpn2[0].bias, stride=2)
    expected = []
    for k, scaled in enumerate((x4, x2, x, F.max_pool2d(x, 2))):
        for layer, padding in ((neck.lateral_convs[k], 0), (neck.fpn_convs[k], 1)):
            assert layer.conv.bias is None
            scaled = F.conv2d(scaled, layer.conv.weight, padding=padding).permute(0, 2, 3, 1)
            scaled = F.layer_norm(scaled, (6,), layer.ln.weight, layer.ln.bias, 1e-6).permute(0, 3, 1, 2)
        expected.append(scaled)
    expected.append(expected[-1][:, :, ::2, ::2])
    for ours, theirs in zip(neck((x,)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_pyramid_refuses_numbers_that_do_not_fit():
    with pytest.raises(UserError, match='in_channels=10'):
        SimpleFeaturePyramid(10)
    with pytest.raises(UserError, match='num_outs=3'):
        SimpleFeaturePyramid(16, num_outs=3)
