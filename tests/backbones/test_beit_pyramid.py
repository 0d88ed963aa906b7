"""The segmentation backbone: timm's network, its maps, weights from every stage before."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from vfd.backbones import BEiTPyramid, MaskedAutoencoder
from vfd.checkpoints.beit_layout import _positions, resize_relative_table
from vfd.errors import UserError
from vfd.registry import MODELS

SMALL = dict(img_size=32, patch_size=8, embed_dim=16, depth=4, num_heads=2, out_indices=(0, 1, 2, 3))
SMALL['norm_cfg'] = {'type': 'BN'}
# Released files join the three biases and store the index of relative positions.
INDEX = 'attn.relative_position_index'


def network(**changes) -> BEiTPyramid:
    torch.manual_seed(0)
    return BEiTPyramid(**{**SMALL, **changes})


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of released files."""
    renamed = {name: value for name, value in state.items() if not name.endswith(('q_bias', 'v_bias'))}
    for name, value in state.items():
        if name.endswith('q_bias'):
            stem = name.removesuffix('q_bias')
            keys = torch.randn_like(value)
            renamed[f'{stem}qkv.bias'] = torch.cat([value, keys, state[f'{stem}v_bias']])
            renamed[f'{stem.removesuffix("attn.")}{INDEX}'] = torch.zeros(17, 17)
    return renamed


def saved(state: dict[str, Tensor], path, key: str = 'model') -> str:
    torch.save({key: state}, path)
    return str(path)


def test_four_maps_of_four_sizes():
    maps = network(drop_path_rate=0.1)(torch.randn(2, 3, 32, 32))
    assert [tuple(each.shape) for each in maps] == [(2, 16, s, s) for s in (16, 8, 4, 2)]


@pytest.mark.parametrize('indices', [(3,), (0, 3), (0, 1, 3)])
def test_as_many_maps_as_indices(indices, tmp_path):
    whole = randomised(network(out_indices=(*indices, 4, 5, 6)[:4], depth=7))
    path = saved(
        {f'backbone.{name}': value for name, value in whole.state_dict().items()}, tmp_path / 'four.pth'
    )
    part = network(out_indices=indices, depth=7, checkpoint=path).eval()
    part.init_weights()
    images = torch.randn(2, 3, 32, 32)
    maps = part(images)
    assert len(maps) == len(indices)
    for few, four in zip(maps, whole(images), strict=False):
        torch.testing.assert_close(few, four)
    blocks = indices[-1] + 1
    sum(each.square().sum() for each in maps).backward()
    unused = [name for name, p in part.named_parameters() if p.grad is None]
    assert all(name.startswith('blocks.') and int(name.split('.')[1]) >= blocks for name in unused)


@pytest.mark.parametrize('size', [32, (32, 48)])
def test_timm_answers_the_same(size):
    ours = randomised(network(img_size=size, mlp_ratio=2.0))
    name, arguments, state = ours.timm_form()
    theirs = timm.create_model(name, **arguments).eval()
    theirs.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, *((size, size) if isinstance(size, int) else size))
    with torch.no_grad():
        maps = theirs.forward_intermediates(images, indices=list(ours.out_indices), intermediates_only=True)
        fine, double, same, half = ours(images)
    torch.testing.assert_close(same, maps[2])
    torch.testing.assert_close(half, torch.nn.functional.max_pool2d(maps[3], 2))
    torch.testing.assert_close(double, ours.fpn2(maps[1]))
    torch.testing.assert_close(fine, ours.fpn1(maps[0]))
    assert len(theirs.blocks) == 4 and isinstance(theirs.norm, nn.LayerNorm)


def test_it_starts_as_the_plain_transformer_of_the_pretraining(tmp_path):
    torch.manual_seed(0)
    encoder = MaskedAutoencoder(
        img_size=32, patch_size=8, embed_dim=16, depth=4, num_heads=2, decoder_embed_dim=8, decoder_depth=1,
        decoder_num_heads=2,
    ).eval()  # fmt: skip
    state = {f'student.{name}': value for name, value in encoder.state_dict().items()}
    state['predictor.fc1.weight'] = torch.zeros(2, 2)
    backbone = network(checkpoint=saved(state, tmp_path / 'g2sd.pth', 'state_dict')).eval()
    before = backbone.fpn1[0].weight.clone()
    backbone.init_weights()
    assert backbone.fpn1[0].weight.equal(before)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = encoder.forward_blocks(images, None, [2])[2]
        torch.testing.assert_close(backbone(images)[2].flatten(2).transpose(1, 2), tokens[:, 1:])
    assert all(not block.attn.relative_position_bias_table.any() for block in backbone.blocks)
    assert all((block.gamma_1 == 1).all() and (block.gamma_2 == 1).all() for block in backbone.blocks)


@pytest.mark.parametrize('wrapped', [False, True])
def test_released_segmentation_files(tmp_path, wrapped):
    source = randomised(network())
    state = {f'backbone.{name}': value for name, value in released(source.state_dict()).items()}
    state['decode_head.conv_seg.weight'] = torch.zeros(3, 16, 1, 1)
    if wrapped:  # a distillation's checkpoint: both networks, and maps that were saved along
        other = {f'teacher.{name}': torch.full_like(value, 7) for name, value in state.items()}
        state = {f'student.{name}': value for name, value in state.items()} | other
        state['student_decode_head_conv_seg'] = state['teacher_decode_head_conv_seg'] = torch.zeros(
            2, 3, 8, 8
        )
    loaded = network(checkpoint=saved(state, tmp_path / 'segmentor.pth')).eval()
    loaded.init_weights()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for ours, theirs in zip(loaded(images), source(images), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_another_patch_and_another_grid_are_interpolated(tmp_path):
    source = randomised(network(img_size=42, patch_size=7))  # 6 x 6 patches
    path = saved(released(source.state_dict()), tmp_path / 'beit.pth')
    target = network(checkpoint=path).eval()  # 4 x 4 patches of 8
    target.init_weights()
    state, loaded = source.state_dict(), target.state_dict()
    for name in ('cls_token', 'blocks.3.attn.qkv.weight', 'fpn1.3.weight'):
        assert loaded[name].equal(state[name])
    assert loaded['pos_embed'][:, 0].equal(state['pos_embed'][:, 0])
    table = 'blocks.1.attn.relative_position_bias_table'
    assert loaded[table].shape == (7 * 7 + 3, 2) and loaded[table][-3:].equal(state[table][-3:])
    torch.testing.assert_close(loaded[table][24], state[table][60])  # no offset: the centre keeps its value
    smooth = torch.nn.functional.interpolate(state['patch_embed.proj.weight'], (8, 8), mode='bicubic')
    torch.testing.assert_close(loaded['patch_embed.proj.weight'], smooth)
    assert torch.isfinite(target(torch.randn(1, 3, 32, 32))[0]).all()


@pytest.mark.parametrize(('old', 'new'), [(4, (7, 7)), (4, (5, 9)), (7, (4, 4))])
def test_relative_tables_keep_near_offsets_and_follow_a_smooth_bias(old, new):
    """BEiT's rule: a cubic function of the offset, stretched by the geometric progression, is met exactly."""
    side, sides = 2 * old - 1, [2 * length - 1 for length in new]
    y, x = (torch.from_numpy(_positions(side, target)) for target in sides)

    def bias(y: Tensor, x: Tensor) -> Tensor:
        return 0.01 * y[:, None] ** 3 - 0.2 * x**2 + 0.1 * y[:, None] * x + 1

    table = torch.cat([bias(y, x).reshape(-1, 1).repeat(1, 2), torch.tensor([[1.0, 2.0]] * 3)]).float()
    resized = resize_relative_table(table, new)
    wanted = [torch.arange(target, dtype=torch.float64) - target // 2 for target in sides]
    # Outside of the old offsets the outermost value is kept.
    wanted = [w.clamp(p[0], p[-1]) for w, p in zip(wanted, (y, x), strict=True)]
    torch.testing.assert_close(resized[:-3, 0], bias(*wanted).flatten().float(), rtol=1e-4, atol=1e-4)
    assert resized[-3:].equal(table[-3:]) and len(resized) == sides[0] * sides[1] + 3
    steps = (y[1:] - y[:-1])[side // 2 :]
    if len(steps) > 2 and sides[0] > side:
        torch.testing.assert_close(steps[1:] / steps[:-1], (steps[1] / steps[0]).expand(len(steps) - 1))
        ratio = float(steps[1] / steps[0])
        assert float(y[-1]) == pytest.approx(sides[0] // 2, rel=1e-3) or ratio == pytest.approx(1.5, rel=1e-5)


def test_tables_of_one_grid_and_of_no_square_are_left_alone():
    table = torch.randn(7 * 7 + 3, 2)
    assert resize_relative_table(table, (4, 4)) is table
    assert resize_relative_table(table[:-4], (5, 5)).shape == table[:-4].shape
    assert resize_relative_table(torch.randn(4, 2), (2, 2)).shape == (3 * 3 + 3, 2)


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda state: state.pop('blocks.2.norm1.weight'), 'Missing 1'),
        (lambda state: state.pop('blocks.2.gamma_1'), 'gamma_1'),
        (
            lambda state: state.pop('blocks.0.attn.relative_position_bias_table'),
            'relative_position_bias_table',
        ),
        (lambda state: state.pop('fpn2.0.bias'), 'fpn2'),
        (lambda state: state.update({'blocks.4.norm1.weight': torch.ones(16)}), 'no place for blocks.4'),
        (
            lambda state: state.update({'rel_pos_bias.relative_position_bias_table': torch.ones(52, 2)}),
            'rel_pos',
        ),
        (lambda state: state.update(cls_token=torch.zeros(1, 1, 32)), 'cls_token'),
    ],
)
def test_half_a_network_is_refused(tmp_path, change, text):
    state = network().state_dict()
    change(state)
    backbone = network(checkpoint=saved(state, tmp_path / 'file.pth'))
    with pytest.raises(UserError, match=text):
        backbone.init_weights()


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(img_size=30), 'divisible'),
        (dict(img_size=8), 'two patches'),
        (dict(out_indices=()), 'one to four rising'),
        (dict(out_indices=(0, 1, 2, 4)), 'from 0 to 3'),
        (dict(out_indices=(0, 1, 2, 3, 3)), 'four rising'),
        (dict(out_indices=(1, 0, 2, 3)), 'four rising'),
        (dict(arch='smal'), 'small'),
    ],
)
def test_wrong_settings(change, text):
    with pytest.raises(UserError, match=text):
        network(**change)


def test_images_of_another_size():
    with pytest.raises(UserError, match=r'32x48 pixels.*crop_size=\(32, 32\)'):
        network()(torch.zeros(1, 3, 32, 48))


def test_gradients_reach_every_parameter():
    backbone = network()
    sum(each.square().sum() for each in backbone(torch.randn(2, 3, 32, 32))).backward()
    without = [name for name, parameter in backbone.named_parameters() if parameter.grad is None]
    assert not without
    assert MODELS.get('vfd.BEiTPyramid') is BEiTPyramid


def test_half_precision_agrees():
    backbone = randomised(network())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        whole = backbone(images)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            half = backbone(images)
    assert half[2].shape == whole[2].shape
    assert torch.nn.functional.cosine_similarity(half[2].float().flatten(), whole[2].flatten(), dim=0) > 0.99
