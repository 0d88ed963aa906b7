"""MAE and its self-distillation: modes, losses against their formulas, cached answers, mistakes."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import BaseDataElement

from vfd.engine.schedulers_linear import WarmupLinearByIter, warmup_linear
from vfd.errors import UserError
from vfd.losses.pixel import normalise_patches, patchify
from vfd.methods.mae.self_distillation import THUMBNAIL, distance, thumbnails
from vfd.registry import MODELS
from vfd.stores import StoreWriter

ENCODER = {'img_size': 16, 'patch_size': 4, 'embed_dim': 24, 'depth': 3, 'num_heads': 3}
STUDENT = {
    'type': 'vfd.MaskedAutoencoder', **ENCODER,
    'decoder_embed_dim': 16, 'decoder_depth': 1, 'decoder_num_heads': 2,
}  # fmt: skip
TEACHER = {'type': 'vfd.Teacher', 'source': {'type': 'vfd.MAESource', **ENCODER}, 'checkpoint': 'random'}
PREPROCESSOR = {
    'type': 'mmpretrain.SelfSupDataPreprocessor',
    'mean': [123.675, 116.28, 103.53],
    'std': [58.395, 57.12, 57.375],
    'to_rgb': True,
}


def build(kind: str = 'SelfDistillMAE', **settings):
    torch.manual_seed(0)
    config = {'type': f'vfd.{kind}', 'student': STUDENT, 'data_preprocessor': PREPROCESSOR, **settings}
    if kind == 'SelfDistillMAE':
        config.setdefault('teacher', TEACHER)
    return MODELS.build(config)


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------------------------------------- modes


@pytest.mark.parametrize('kind', ['MAE', 'SelfDistillMAE'])
def test_modes(kind, images):
    model = build(kind)
    losses = model(images, mode='loss')
    assert set(losses) == ({'loss_mae'} if kind == 'MAE' else {'loss_mae', 'loss_distill'})
    assert all(value.ndim == 0 for value in losses.values())
    assert model(images).shape == (3, 17, 24)
    results = model(images, mode='predict')
    assert len(results) == 3 and results[0].pred_image.shape == (3, 16, 16)
    assert results[0].mask.sum() == 12
    assert all(name.startswith('student.') for name in model.state_dict())


@pytest.mark.parametrize('norm_pix', [True, False])
def test_pixel_loss_is_the_mean_over_hidden_patches(images, norm_pix):
    model = build('MAE', norm_pix=norm_pix, mask_ratio=0.5).double()
    images = images.double()
    mask = model.draw_mask(images)
    model.draw_mask = lambda inputs: mask
    target = patchify(images, 4)
    target = normalise_patches(target) if norm_pix else target
    errors = (model.student.reconstruct(images, mask) - target).square().mean(-1)
    expected = (errors * mask.mask).sum() / mask.mask.sum()
    torch.testing.assert_close(model(images, mode='loss')['loss_mae'], expected)


def test_reconstruction_shows_true_contrast_with_normalised_pixels(images):
    """A perfect prediction of normalised patches comes out as the image."""
    model = build('MAE', norm_pix=True)
    model.student.reconstruct = lambda inputs, mask: normalise_patches(patchify(inputs, 4))
    shown = torch.stack([result.pred_image for result in model(images, mode='predict')])
    torch.testing.assert_close(shown, images, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------- stage 2


@pytest.mark.parametrize('target', ['cls', 'all'])
@pytest.mark.parametrize('reduction', ['sum', 'mean'])
def test_distance_to_the_teacher(images, target, reduction):
    model = build(target=target, reduction=reduction, loss_weight=0.5).double()
    images = images.double()
    part = slice(0, 1) if target == 'cls' else slice(None)
    theirs, ours = model.teacher.network(images)[:, part], model.student(images)[:, part]
    squared = (ours - theirs).square()
    expected = 0.5 * (squared.sum() / 3 if reduction == 'sum' else squared.mean())
    torch.testing.assert_close(model(images, mode='loss')['loss_distill'], expected)


def test_class_token_is_that_of_the_whole_pass(images):
    student = build('MAE').student.double()
    images = images.double()
    torch.testing.assert_close(student.forward_cls(images), student(images)[:, 0], rtol=1e-12, atol=1e-12)


def test_clean_branches_compute_only_the_class_token_of_the_last_block(images):
    model = build()
    seen = []
    for network in (model.student, model.teacher.network):
        network.blocks[-1].mlp.register_forward_hook(
            lambda module, args, output: seen.append(output.shape[1])
        )
    model(images, mode='loss')
    assert sorted(seen) == [1, 1, 5]  # two class tokens; class token and four visible patches


def test_teacher_learns_nothing_and_is_not_saved(images):
    model = build()
    before = {name: value.clone() for name, value in model.teacher.network.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    sum(model(images, mode='loss').values()).backward()
    optimizer.step()
    after = model.teacher.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in model.teacher.network.parameters())
    assert not model.teacher.network.training


def test_distance_is_at_least_single_precision():
    ours, theirs = torch.full((2, 24), 300.0).half(), torch.zeros(2, 24).half()
    assert distance(ours, theirs).item() == 24 * 300.0**2  # more than half precision holds


# ------------------------------------------------------------------------------------------- stored answers


@pytest.fixture
def store(tmp_path, images):
    """The answers of the teacher of `build` for ``images``, and the samples that name them."""
    answers = build().teacher(images)['cls']
    fields = {'cls': ('float32', (24,)), THUMBNAIL: ('float32', (3, 4, 4))}
    names = [f'{k}.png' for k in range(3)]
    with StoreWriter(tmp_path / 'store', fields, {}) as writer:
        writer.append(names, cls=answers, **{THUMBNAIL: thumbnails(images)})
    samples = [BaseDataElement(metainfo={'img_path': str(tmp_path / name)}) for name in names]
    return {
        'type': 'vfd.StoredTeacher',
        'store': str(tmp_path / 'store'),
        'data_root': str(tmp_path),
    }, samples


def test_stored_and_live_answers_give_identical_losses(store, images):
    teacher, samples = store
    live, cached = build(), build(teacher=teacher)
    cached.load_state_dict(live.state_dict())
    for order in ([0, 1, 2], [2, 0, 1]):
        batch, losses = [samples[k] for k in order], []
        for model in (live, cached):
            torch.manual_seed(2)
            losses.append(model(images[order], batch, mode='loss'))
        assert losses[0]['loss_mae'] == losses[1]['loss_mae']
        torch.testing.assert_close(losses[0]['loss_distill'], losses[1]['loss_distill'], rtol=1e-6, atol=0)


def test_stored_answers_for_other_pixels_are_refused(store, images):
    teacher, samples = store
    model = build(teacher=teacher)
    with pytest.raises(UserError, match='random transforms'):
        model(images.flip(-1), samples, mode='loss')
    model.eval()
    model(images.flip(-1), samples, mode='loss')  # only training is watched


# ------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize('kind', ['MAE', 'SelfDistillMAE'])
@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({'mask_ratio': 0.99}, 'leaves none of the 16 patches visible'),
        ({'mask_ratio': 0.0}, 'nothing to predict'),
        ({'mask_ratio': 1.5}, 'expected a number from 0'),
        ({'student': {**STUDENT, 'img_size': 18}}, 'not divisible by patch_size'),
        ({'student': {**STUDENT, 'pixel_outputs': 2}}, 'pixel_outputs=1'),
        ({'student': {'type': 'vfd.MaskedViT', **ENCODER}}, 'MaskedAutoencoder'),
    ],
)
def test_settings_that_cannot_work(kind, settings, text):
    with pytest.raises(UserError, match=text):
        build(kind, **settings)


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({'target': 'clss'}, 'did you mean "cls"'),
        ({'reduction': 'none'}, 'sum, mean'),
        ({'student': {**STUDENT, 'drop_path_rate': 0.1}}, 'drop_path_rate'),
    ],
)
def test_settings_of_stage_2_that_cannot_work(settings, text):
    with pytest.raises(UserError, match=text):
        build(**settings)


@pytest.mark.parametrize('kind', ['MAE', 'SelfDistillMAE'])
def test_images_of_another_size(kind):
    with pytest.raises(UserError, match='built for 16x16'):
        build(kind)(torch.zeros(2, 3, 20, 20), mode='loss')


def test_teacher_of_another_width(images):
    model = build(teacher={**TEACHER, 'source': {**TEACHER['source'], 'embed_dim': 36}})
    with pytest.raises(UserError, match=r'\(24,\) an image, the teacher \(36,\)'):
        model(images, mode='loss')


def test_student_that_equals_its_teacher(images):
    model = build()
    model.teacher.network.load_state_dict(
        {
            name: value
            for name, value in model.student.state_dict().items()
            if name in model.teacher.network.state_dict()
        }
    )
    with pytest.raises(UserError, match='the teacher itself started from'):
        model(images, mode='loss')


# ------------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize(('total', 'warmup'), [(10, 0), (10, 4)])
def test_linear_schedule(total, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupLinearByIter(optimizer, warmup=warmup, end=total)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        schedule.step()
    expected = [2.0 * (t / warmup if t < warmup else (total - t) / (total - warmup)) for t in range(total)]
    assert rates == expected and warmup_linear(total, total, warmup) == 0


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({}, 'needs `end`'),
        ({'end': 5, 'by_epoch': True}, 'by_epoch=False'),
        ({'end': 5, 'warmup': 5}, 'warmup=5'),
    ],
)
def test_schedules_that_cannot_work(settings, text):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(UserError, match=text):
        WarmupLinearByIter(optimizer, **settings)
