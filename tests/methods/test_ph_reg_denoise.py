"""PH-Reg's denoised teacher: every short cut equals the plain path, and what averaging must leave alone."""

from __future__ import annotations

import pytest
import timm
import torch
from mmpretrain.models import ClsDataPreprocessor
from ph_reg_toy import CLIP, GRID, PATCH, SIDE, VIT, images, network, teacher_config

from vfd.errors import UserError
from vfd.methods.ph_reg.denoise import DenoisedTeacher, denoise, denoise_images
from vfd.methods.ph_reg.views import Views, draw_seeds, sample_views, shift_images
from vfd.registry import MODELS
from vfd.teachers import Teacher

FILL = torch.tensor([2.0, 1.5, -0.5], dtype=torch.float64)
KINDS = {'vit': {}, 'clip': {}, 'naclip': {'head': 'naclip'}, 'csa': {'head': 'csa'}}


def toy(kind: str, **options):
    return network('vit' if kind == 'vit' else 'clip', **KINDS[kind], **options)


def drawn(count: int, views: int = 5, grid=GRID, shift_frac: float = 0.35) -> Views:
    each = [sample_views(grid, views, shift_frac, [s, s + 1, s + 2]) for s in range(count)]
    return Views(torch.stack([v.shifts for v in each]), torch.stack([v.flips for v in each]))


def plain(ask, batch: torch.Tensor, views: Views, grid=GRID) -> torch.Tensor:
    """Pixel views, one network pass for each, moved back patch by patch."""
    targets = []
    for image, shifts, flips in zip(batch, *views, strict=True):
        one = Views(shifts, flips)
        shown = shift_images(image.expand(len(flips), -1, -1, -1), one, PATCH, FILL)
        sums, counts = 0.0, torch.zeros(grid[0] * grid[1], dtype=torch.float64)
        for view in range(len(flips)):
            features = ask(shown[view : view + 1])[0]  # (T, D)
            total = torch.zeros_like(features)
            for place in range(len(features)):
                y, x = divmod(place, grid[1])
                x = grid[1] - 1 - x if flips[view] else x
                row, column = y + int(shifts[view, 0]), x + int(shifts[view, 1])
                if 0 <= row < grid[0] and 0 <= column < grid[1]:
                    total[row * grid[1] + column] += features[place]
                    counts[row * grid[1] + column] += 1
            sums = sums + total
        targets.append(sums / counts.to(sums)[:, None])
    return torch.stack(targets)


# -------------------------------------------------------------------------------------------------------- short cuts


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@torch.no_grad()
def test_gathered_tokens_equal_views_of_pixels(kind, dtype, tolerance):
    model, batch, views = toy(kind).to(dtype), images().to(dtype), drawn(2)
    expected = plain(model.dense, batch, views)
    ours = denoise(model, batch, views, FILL)
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    as_images = denoise_images(model.dense, batch, views, FILL, PATCH)
    torch.testing.assert_close(as_images, expected, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_images_that_are_not_square():
    model, batch = toy('vit').double(), images(2, 5 * PATCH, 3 * PATCH).double()
    views = drawn(2, grid=(5, 3))
    torch.testing.assert_close(denoise(model, batch, views, FILL), plain(model.dense, batch, views, (5, 3)))


@pytest.mark.parametrize('chunk', [1, 3, 7, 100])
@torch.no_grad()
def test_chunks_do_not_change_the_answer(chunk):
    model, batch, views = toy('naclip').double(), images(3).double(), drawn(3)
    torch.testing.assert_close(
        denoise(model, batch, views, FILL, chunk), denoise(model, batch, views, FILL), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ('side', 'given', 'expected'), [(37, None, 1), (32, None, 2), (12, None, 14), (37, 5, 5)]
)
def test_a_cpu_runs_fewer_of_large_views_at_once(side, given, expected):
    passes = []

    def ask(shown: torch.Tensor) -> torch.Tensor:
        passes.append(len(shown))
        return torch.zeros(len(shown), side * side, 2)

    views = drawn(1, 40, (side, side))
    denoise_images(ask, torch.zeros(1, 3, side * PATCH, side * PATCH), views, FILL.float(), PATCH, given)
    assert set(passes[:-1]) == {expected}


@torch.no_grad()
def test_equal_views_run_once_and_count_as_often_as_drawn():
    model, batch = toy('vit').double(), images(1).double()
    shifts = torch.tensor([[[0, 0], [2, -1], [2, -1], [0, 0], [2, -1], [2, -1]]])
    flips = torch.tensor([[False, True, True, False, True, False]])
    passes = []
    handle = model.blocks[0].register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    ours = denoise(model, batch, Views(shifts, flips), FILL)
    handle.remove()
    assert passes == [3]
    torch.testing.assert_close(ours, plain(model.dense, batch, Views(shifts, flips)))


@torch.no_grad()
def test_patches_are_embedded_once_for_image_and_mirror():
    model, batch = toy('vit'), images(2)
    sizes = []
    model.patch_embed.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape)))
    denoise(model, batch, drawn(2, views=9), FILL)
    assert sizes == [(2, 3, SIDE, SIDE), (2, 3, SIDE, SIDE), (1, 3, PATCH, PATCH)]


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@torch.no_grad()
def test_fused_attention_equals_the_written_out_one(dtype, tolerance):
    model, views = toy('vit').to(dtype), drawn(2)
    fused = denoise(model, images().to(dtype), views, FILL)
    for block in model.blocks:
        assert block.attn.fused_attn
        block.attn.fused_attn = False
    torch.testing.assert_close(
        denoise(model, images().to(dtype), views, FILL), fused, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize('kind', ['clip', 'naclip', 'csa'])
@torch.no_grad()
def test_the_last_block_of_patches_alone_equals_that_of_all_tokens(kind):
    model = toy(kind, num_registers=3).double()
    whole = model.tokens(images().double())
    torch.testing.assert_close(model.dense(images().double()), whole[:, 1:-3], rtol=0, atol=1e-12)


@torch.no_grad()
def test_omega_is_kept_and_follows_the_grid():
    model = toy('naclip')
    model.dense(images())
    (first,) = model._omegas.values()
    model.dense(images(seed=1))
    assert next(iter(model._omegas.values())) is first
    model.dense(images(1, 2 * PATCH, 3 * PATCH))
    (second,) = model._omegas.values()
    side = 1 + 2 * 3 + model.num_registers
    assert second.shape == (side, side) and second[0].abs().sum() == 0
    assert second[1, 1 + 3 + 2].item() == pytest.approx(torch.exp(torch.tensor(-5 / 50.0)).item())


# -------------------------------------------------------------------------------------------------------- the teacher


def teacher(config: dict = VIT, seed: int = 0, **options) -> DenoisedTeacher:
    torch.manual_seed(seed)
    return MODELS.build(teacher_config(config, **options))


def test_one_view_is_the_network_itself():
    one = teacher(num_views=1)
    torch.testing.assert_close(one(images())['dense'], one.network.dense(images()))


@pytest.mark.parametrize('sampling', ['fps', 'uniform'])
def test_constant_features_stay_constant(sampling):
    constant = torch.tensor([3.0, -1.0])
    each = [sample_views(GRID, 7, 0.4, [s, s, s], sampling) for s in range(2)]
    views = Views(torch.stack([v.shifts for v in each]), torch.stack([v.flips for v in each]))
    ours = denoise_images(lambda shown: constant.expand(len(shown), 36, 2), images(), views, FILL, PATCH)
    torch.testing.assert_close(ours, constant.expand(2, 36, 2))


def test_views_follow_seeds_and_torchs_generator():
    some = teacher()
    seeds = draw_seeds(2)
    torch.testing.assert_close(some(images(), seed=seeds)['dense'], some(images(), seed=seeds)['dense'])
    torch.manual_seed(3)
    first, second = some(images())['dense'], some(images())['dense']
    torch.manual_seed(3)
    assert torch.equal(some(images())['dense'], first) and not torch.equal(first, second)


def test_each_image_has_its_own_views_whatever_is_beside_it():
    some, seeds = teacher(), draw_seeds(3)
    together = some(images(3), seed=seeds)['dense']
    for k in range(3):
        alone = some(images(3)[k : k + 1], seed=seeds[k : k + 1])['dense']
        torch.testing.assert_close(alone[0], together[k], rtol=1e-4, atol=1e-5)


def test_empty_pixels_are_white_for_any_normalisation():
    """The batch is normalised one way, the network wants another; white stays white."""
    some, seeds = teacher(CLIP), draw_seeds(1)
    white = torch.ones(1, 3, SIDE, SIDE) * 255
    some.bind(ClsDataPreprocessor(mean=[10, 20, 30], std=[2, 3, 4], to_rgb=True))
    mean, std = (torch.tensor(v).view(3, 1, 1).float() for v in ([10, 20, 30], [2, 3, 4]))
    shown = []
    keep = some.network.patch_table
    some.network.patch_table = lambda batch, fill: shown.append((batch, fill)) or keep(batch, fill)
    some((white - mean) / std, seed=seeds)
    ((batch, fill),) = shown
    torch.testing.assert_close(batch[0].mean(dim=(1, 2)), fill.float())


def test_any_transformer_with_a_map_is_denoised_through_pixels():
    torch.manual_seed(0)
    arguments = dict(model_name='test_vit', img_size=64)
    some = DenoisedTeacher(
        dict(type='vfd.TimmSource', **arguments), 'random', taps=['stage.-1'], num_views=3, shift_frac=0.5
    )
    torch.manual_seed(0)
    vit = Teacher(dict(type='vfd.TimmSource', **arguments), 'random', taps=['stage.-1'])
    batch, seeds = images(2, 64, 64), draw_seeds(2)
    ours = some(batch, seed=seeds)['stage.-1']
    views, white = (
        some.views(batch, seeds),
        torch.tensor([(1 - m) / s for m, s in zip(*_unit(some), strict=True)]),
    )
    expected = []
    for image, shifts, flips in zip(batch, *views, strict=True):
        shown = shift_images(image.expand(3, -1, -1, -1), Views(shifts, flips), 16, white)
        maps = vit(shown)['stage.-1']
        maps = torch.where(flips.view(-1, 1, 1, 1), maps.flip(-1), maps)
        sums, counts = torch.zeros(maps.shape[1:]), torch.zeros(4, 4)
        for (down, right), one in zip(shifts.tolist(), maps, strict=True):
            for y in range(4):
                for x in range(4):
                    if 0 <= y + down < 4 and 0 <= x + right < 4:
                        sums[:, y + down, x + right] += one[:, y, x]
                        counts[y + down, x + right] += 1
        expected.append((sums / counts).flatten(1).T)
    torch.testing.assert_close(ours, torch.stack(expected), rtol=1e-4, atol=1e-5)


def _unit(some: Teacher) -> list[list[float]]:
    return [[value / 255 for value in values] for values in (some.normalization.mean, some.normalization.std)]


@pytest.mark.parametrize('config', [VIT, dict(CLIP, head='naclip')], ids=['vit', 'naclip'])
def test_a_teacher_in_bfloat16_is_near_and_answers_in_float32(config):
    exact, half = teacher(config), teacher(config, dtype='bfloat16')
    seeds = draw_seeds(2)
    ours = half(images(), seed=seeds)['dense']
    assert ours.dtype == torch.float32
    assert (ours - exact(images(), seed=seeds)['dense']).abs().max() < 0.2


def test_weights_with_registers_are_no_plain_teacher(tmp_path):
    torch.save(network('vit', num_registers=2).state_dict(), tmp_path / 'student.pth')
    with pytest.raises(UserError, match='has 2 registers, this RegisterViT 0'):
        teacher(checkpoint=str(tmp_path / 'student.pth'))
    teacher(dict(VIT, num_registers=2), checkpoint=str(tmp_path / 'student.pth'))
    torch.save(network('vit', num_registers=0).state_dict(), tmp_path / 'plain.pth')
    with pytest.raises(UserError, match=r'plain\.pth without registers: set num_registers=0'):
        teacher(dict(VIT, num_registers=2), checkpoint=str(tmp_path / 'plain.pth'))


@pytest.mark.parametrize(('kind', 'config'), [('vit', VIT), ('clip', dict(CLIP, head='naclip'))])
def test_positions_of_another_grid_are_interpolated_by_the_networks_own_rule(kind, config, tmp_path):
    plain = network(kind, num_registers=0, img_size=5 * PATCH)
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    tables = {}
    for rule in ('scale01', 'timm'):
        built = {**config, 'img_size': SIDE, 'pos_interp': rule}
        loaded = teacher(built, checkpoint=str(tmp_path / 'plain.pth')).network
        student = network(kind, num_registers=0, img_size=SIDE, pos_interp=rule)
        student.load(tmp_path / 'plain.pth')
        assert loaded.position_table().equal(student.position_table())
        tables[rule] = loaded.position_table()
    assert not tables['scale01'].equal(tables['timm'])


@pytest.mark.parametrize(
    ('config', 'changes'),
    [
        (VIT, dict(pos_interp='timm')),
        (VIT, dict(act_layer='relu')),
        (dict(CLIP, head='naclip'), dict(head='kk')),
        (dict(CLIP, head='naclip'), dict(gaussian_std=4.0)),
        (dict(CLIP, head='naclip'), dict(last_block='full')),
        (dict(CLIP, head='naclip'), dict(quick_gelu=False)),
    ],
)
def test_its_fingerprint_holds_what_changes_the_answer_beside_the_weights(config, changes, tmp_path):
    torch.manual_seed(0)
    torch.save(MODELS.build({**config, 'num_registers': 0}).state_dict(), tmp_path / 'plain.pth')
    one, other = (
        teacher({**config, **some}, checkpoint=str(tmp_path / 'plain.pth')).fingerprint()
        for some in ({}, changes)
    )
    assert one['weights_sha256'] == other['weights_sha256'] and one['settings'] != other['settings']
    assert {**one, 'settings': None} == {**other, 'settings': None}


def test_it_says_what_it_is():
    some = teacher()
    assert some.fingerprint()['num_views'] == 4 and some.fingerprint()['shift_frac'] == 0.3
    assert some.summary()['views'].startswith('4 of an image') and some.summary()['teacher'].startswith(
        'RegisterViT'
    )


def test_timms_weights_are_the_networks(tmp_path):
    settings = {key: value for key, value in VIT.items() if key not in ('type', 'model_name')}
    vit = timm.create_model(VIT['model_name'], num_classes=0, global_pool='', **settings).eval()
    torch.save(vit.state_dict(), tmp_path / 'vit.pth')
    some = teacher(checkpoint=str(tmp_path / 'vit.pth'), num_views=1)
    with torch.no_grad():
        torch.testing.assert_close(some(images())['dense'], vit(images())[:, 1:])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_views=0), 'num_views=0'),
        (dict(chunk=0), 'chunk=0'),
        (dict(shift_frac=1.0), 'fraction of the side'),
        (dict(offset_sampling='fsp'), 'did you mean "fps"'),
        (dict(taps=['dense', 'pooled']), 'of one tap'),
        (dict(taps=['logits']), 'has the tap "dense"'),
        (dict(source=dict(type='vfd.TimmSource', model_name='test_resnet'), taps=['stage.0']), 'no patches of one'),
        (dict(source=dict(type='vfd.DenseSource', network=dict(type='mmpretrain.ResNet', depth=18))), 'RegisterViT or'),
        (dict(checkpoint='no/such.pth'), 'no/such.pth'),
    ],
)  # fmt: skip
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        teacher(**options)


def test_a_resolution_that_is_no_multiple_of_the_patch_is_explained():
    with pytest.raises(UserError, match=r'43x42 pixels are no multiple of the patch size 7'):
        teacher()(images(1, 43, 42))
    with pytest.raises(UserError, match='ids_keep'):
        teacher()(images(1), ids_keep=torch.zeros(1, 3, dtype=torch.long))
