"""DMAE: what runs, what learns, what is saved. The numbers themselves: tests/golden/test_dmae.py."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from mae_toy import (
    KEPT,
    PATCH,
    PATCHES,
    SIZE,
    STUDENT,
    TEACHER,
    TokenCounts,
    build,
    changed,
    images,
    one_mask,
    taught_by,
    train,
)
from mmengine.model.utils import convert_sync_batchnorm
from mmengine.optim import OptimWrapper

from vfd.losses.pixel import pixel_target
from vfd.methods.dmae import DMAE
from vfd.methods.dmae.core import TARGETS, build_projector, feature_distance

# ------------------------------------------------------------------------------------------------------ what runs


def test_the_teacher_stops_after_its_last_tap_and_sees_visible_patches_only():
    model = build()
    network = model.teacher.network
    assert len(network.blocks) == 3 and not hasattr(network, 'decoder_blocks')
    assert isinstance(network.norm, torch.nn.Identity)
    counts = TokenCounts()
    counts.watch(**{f'block{k}': block for k, block in enumerate(network.blocks)}, norm=network.norm)
    model(images(), None, mode='loss')
    assert counts == {'block0': [1 + KEPT], 'block1': [1 + KEPT], 'block2': [1 + KEPT], 'norm': []}


def test_the_students_last_decoder_block_and_pixel_head_see_hidden_patches_only():
    model = build()
    student, counts = model.student, TokenCounts()
    first, last = student.decoder_blocks
    counts.watch(
        embed=student.patch_embed.proj, **{f'block{k}': block for k, block in enumerate(student.blocks)},
        norm=student.norm, first=first, first_mlp=first.mlp, last_mlp=last.mlp, last_proj=last.attn.proj,
        decoder_norm=student.decoder_norm, pred=student.decoder_pred, projector=model.projectors[0],
    )  # fmt: skip
    model(images(), None, mode='loss')
    visible, hidden, everything = [1 + KEPT], [PATCHES - KEPT], [1 + PATCHES]
    assert counts == {
        'embed': [], 'block0': visible, 'block1': visible, 'block2': visible, 'norm': visible,
        'first': everything, 'first_mlp': everything, 'last_mlp': hidden, 'last_proj': hidden,
        'decoder_norm': hidden, 'pred': hidden, 'projector': visible,
    }  # fmt: skip


def test_student_and_teacher_see_the_same_patches():
    model, seen = build(), []
    for network in (model.student, model.teacher.network):
        embed = network.embed
        network.embed = lambda x, keep, embed=embed: seen.append((x, keep)) or embed(x, keep)
    model(images(), None, mode='loss')
    (batch, keep), (other_batch, other_keep) = seen
    assert torch.equal(keep, other_keep) and torch.equal(batch, other_batch)
    assert len({tuple(sorted(row)) for row in keep.tolist()}) > 1  # a mask of its own for every image


def test_every_step_draws_a_new_mask():
    model = build()
    assert not torch.equal(model.draw_mask(images()).ids_keep, model.draw_mask(images()).ids_keep)


@pytest.mark.parametrize('mode', ['tensor', 'predict'])
def test_other_modes_never_ask_the_teacher(mode):
    model, counts = build().eval(), TokenCounts()
    counts.watch(block=model.teacher.network.blocks[0])
    answer = model(images(), None, mode=mode)
    assert counts == {'block': []}
    if mode == 'tensor':
        assert answer.shape == (4, 1 + PATCHES, 24)
    else:
        assert [sample.pred_image.shape for sample in answer] == [(3, SIZE, SIZE)] * 4
        assert all(sample.mask.sum() == PATCHES - KEPT for sample in answer)


@pytest.mark.parametrize('norm_pix', [False, True])
def test_predict_undoes_what_the_target_did(norm_pix):
    """A student that predicts its target exactly draws the image itself."""
    model = build(norm_pix=norm_pix).eval()
    model.student.reconstruct = lambda inputs, mask: pixel_target(inputs, PATCH, norm_pix)
    drawn = torch.stack([sample.pred_image for sample in model(images(), None, mode='predict')])
    torch.testing.assert_close(drawn, images(), rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------------ the frozen teacher


def test_a_step_leaves_the_teacher_alone():
    model = build(student=changed(STUDENT, drop_path_rate=0.5), teacher=taught_by(drop_path_rate=0.9))
    network = model.teacher.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    mine = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, 2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(not p.requires_grad and p.grad is None for p in network.parameters())
    frozen = {name for name, value in model.state_dict().items() if torch.equal(value, mine[name])}
    assert frozen == {'student.pos_embed', 'student.decoder_pos_embed'}


def test_the_teacher_is_in_eval_mode_while_the_student_drops_paths():
    model = build(student=changed(STUDENT, drop_path_rate=0.9), teacher=taught_by(drop_path_rate=0.9))
    one_mask(model).train()
    assert any(m.training for m in model.student.modules() if type(m).__name__ == 'DropPath')
    assert not any(m.training for m in model.teacher.network.modules())
    keep = model.draw_mask(images()).ids_keep
    asked = [model.teacher(images(), keep=keep)['block.2'] for _ in range(2)]
    assert torch.equal(*asked)
    steps = [model(images(), None, mode='loss')['loss_pixel'] for _ in range(2)]
    assert not torch.equal(*steps)  # the student does drop


def test_only_student_and_projectors_are_saved_and_trained():
    model = build()
    names = [*model.state_dict(), *(name for name, _ in model.named_parameters())]
    assert {name.partition('.')[0] for name in names} == {'student', 'projectors'}
    theirs = {id(p) for p in model.teacher.network.parameters()}
    assert not theirs & {id(p) for p in model.parameters()}
    other = build(seed=1)
    assert not other.load_state_dict(model.state_dict()).missing_keys
    assert (
        convert_sync_batchnorm(other) is other
    )  # what mmengine does before DDP finds nothing of the teacher


def test_every_trainable_tensor_gets_a_gradient():
    """What DDP without find_unused_parameters needs."""
    model = build(projector='mlp2', align=[dict(student=0, teacher=1), dict(student=-1, teacher=2)])
    sum(model(images(), None, mode='loss').values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


# ------------------------------------------------------------------------------------------------- every combination


@pytest.mark.parametrize('pairs', [1, 2])
@pytest.mark.parametrize(
    ('projector', 'distance', 'normalize'),
    [*itertools.product(['fc', 'mlp', 'mlp2', None], ['l1', 'l2'], [None]), ('fc', 'l1', False), (None, 'l2', True)],
)  # fmt: skip
def test_heads_and_distances(projector, distance, normalize, pairs):
    align = [dict(student=1, teacher=2), dict(student=2, teacher=0)][:pairs]
    teacher = TEACHER if projector else taught_by(embed_dim=24)
    model = build(align=align, projector=projector, distance=distance, normalize=normalize, teacher=teacher)
    assert model.normalize is ((projector is not None) if normalize is None else normalize)
    losses = one_mask(model)(images(), None, mode='loss')
    assert list(losses) == ['loss_pixel', 'loss_distill_s1_t2', 'loss_distill_s2_t0'][: 1 + pairs]
    sum(losses.values()).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(torch.isfinite(p.grad).all() for p in trained)
    assert all(p.grad.abs().max() > 0 for p in model.projectors.parameters())

    mask = model.draw_mask(images())
    taught = model.teacher(images(), keep=mask.ids_keep)
    _, tapped = model.student.forward_tokens(images(), mask.ids_keep, [1, 2])
    for (block, tap), head, name in zip(model.pairs, model.projectors, list(losses)[1:], strict=True):
        ours, theirs = head(tapped[block]).double(), taught[tap].double()
        if model.normalize:
            ours = ours / ours.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            theirs = theirs / theirs.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        gap = ours - theirs
        expected = (gap.abs() if distance == 'l1' else gap.square()).mean()
        assert losses[name].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize('norm_pix', [False, True])
@pytest.mark.parametrize('target', TARGETS)
def test_targets(target, norm_pix):
    model = build(target=target, norm_pix=norm_pix, target_weights=(0.25, 0.75))
    outputs = {'disentangled': 2, 'mixup_disentangled': 3}.get(target, 1)
    assert model.student.decoder_pred.out_features == outputs * 3 * PATCH**2
    losses = model(images(), None, mode='loss')
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    assert model.eval()(images(), None, mode='predict')[0].pred_image.shape == (3, SIZE, SIZE)


@pytest.mark.parametrize('ratio', [0.1, 0.75, 0.9])
def test_mask_ratios(ratio):
    model = build(mask_ratio=ratio)
    assert model.draw_mask(images()).ids_keep.shape == (4, int(PATCHES * (1 - ratio)))
    losses = train(model)
    assert all(math.isfinite(value) for value in losses[0].values())


def test_the_weight_scales_the_distance_alone():
    once, thrice = (one_mask(build(loss_weight=w))(images(), None, mode='loss') for w in (1.0, 3.0))
    assert torch.equal(once['loss_pixel'], thrice['loss_pixel'])
    assert thrice['loss_distill_s1_t2'].item() == pytest.approx(3 * once['loss_distill_s1_t2'].item())


def test_numbers_from_the_end_are_the_same_blocks():
    named, counted = (
        one_mask(build(align=[dict(student=s, teacher=t)]))(images(), None, mode='loss')
        for s, t in ((2, 3), (-1, -1))
    )
    assert [a.item() for a in named.values()] == [b.item() for b in counted.values()]


def test_images_that_are_not_square():
    student, source = (changed(part, img_size=(16, 40)) for part in (STUDENT, TEACHER['source']))
    model = build(student=student, teacher={**TEACHER, 'source': source})
    losses = model(torch.randn(2, 3, 16, 40), None, mode='loss')
    assert all(torch.isfinite(value) for value in losses.values())
    assert model.eval()(torch.randn(2, 3, 16, 40), None, mode='predict')[0].pred_image.shape == (3, 16, 40)


# ------------------------------------------------------------------------------------------------- arithmetic


def test_autocast_keeps_distances_in_float32():
    model, plain = (one_mask(build()) for _ in range(2))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model(images(), None, mode='loss')
    assert {name: value.dtype for name, value in losses.items()} == dict.fromkeys(losses, torch.float32)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    exact = plain(images(), None, mode='loss')
    for name, value in losses.items():
        assert value.item() == pytest.approx(exact[name].item(), rel=0.05)


def test_half_precision_features_are_compared_in_float32():
    """Squares of such features overflow in float16."""
    ours, theirs = (300 * torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(k)) for k in range(2))
    exact = feature_distance(ours, theirs)
    half = feature_distance(ours.half(), theirs.half())
    assert half.dtype == torch.float32 and half.item() == pytest.approx(exact.item(), rel=1e-3)


@pytest.mark.parametrize('dim', [192, 768, 1024])
def test_the_distance_of_unrelated_features_has_the_size_of_unit_vectors(dim):
    """Entries of unit vectors have size D^-1/2, so the published mean over channels starts near 2 / sqrt(pi D)."""
    ours, theirs = (torch.randn(8, 50, dim, generator=torch.Generator().manual_seed(k)) for k in range(2))
    scales = torch.linspace(0.1, 50, 50)[:, None]  # whatever the length of the vectors
    distance = feature_distance(ours * scales, theirs / scales).item()
    assert distance == pytest.approx(2 / math.sqrt(math.pi * dim), rel=0.01)


@pytest.mark.parametrize('distance', ['l1', 'l2'])
def test_zero_tokens_and_flat_patches_stay_finite(distance):
    zero = torch.zeros(2, 5, 8, requires_grad=True)
    loss = feature_distance(zero, torch.zeros(2, 5, 8), distance)
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(zero.grad).all()
    model = build(norm_pix=True, distance=distance)
    losses = model(torch.ones(2, 3, SIZE, SIZE), None, mode='loss')  # no patch has any variance
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_the_teachers_side_gets_no_gradient():
    ours, theirs = (torch.randn(2, 5, 8, requires_grad=True) for _ in range(2))
    feature_distance(ours, theirs).backward()
    assert ours.grad is not None and theirs.grad is None


def test_the_double_projector_is_two_mlps():
    head, x = build_projector('mlp2', 6, 10), torch.randn(3, 6)
    shapes = [tuple(p.shape) for p in head.parameters() if p.ndim == 2]
    assert shapes == [(10, 6), (10, 10), (10, 10), (10, 10)]
    one, two = head
    inner = one.fc2(torch.nn.functional.gelu(one.fc1(x)))
    torch.testing.assert_close(head(x), two.fc2(torch.nn.functional.gelu(two.fc1(inner))))


# --------------------------------------------------------------------------------------------------- learning


def overfit(model: DMAE, steps: int = 60) -> list[dict[str, float]]:
    one_mask(model)
    wrapper = OptimWrapper(torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=3e-3))
    smooth = torch.nn.functional.interpolate(images(size=4), SIZE, mode='bicubic')
    log = []
    for _ in range(steps):
        losses = model(smooth, None, mode='loss')
        log.append({name: value.item() for name, value in losses.items()})
        wrapper.update_params(sum(losses.values()))
    return log


def test_both_terms_fall_on_a_few_images():
    log = overfit(build())
    for name in ('loss_pixel', 'loss_distill_s1_t2'):
        tenths = np.array([step[name] for step in log]).reshape(6, 10).mean(axis=1)
        assert (np.diff(tenths) < 0).all(), (name, tenths)
        assert tenths[-1] < 0.6 * tenths[0], (name, tenths)


def test_the_distance_never_falls_behind_a_projector_of_zeros():
    model = build()
    for parameter in model.projectors.parameters():
        torch.nn.init.zeros_(parameter).requires_grad_(False)
    log = overfit(model, steps=20)
    assert len({step['loss_distill_s1_t2'] for step in log}) == 1
    assert log[-1]['loss_pixel'] < log[0]['loss_pixel']
