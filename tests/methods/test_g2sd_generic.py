"""G2SD, generic stage: what runs, what is averaged, what is refused. The numbers: tests/golden/test_g2sd.py."""

from __future__ import annotations

import copy

import pytest
import torch
from mae_toy import (
    KEPT,
    PATCHES,
    PREPROCESSOR,
    STUDENT,
    TEACHER,
    TEACHER_NETWORK,
    TokenCounts,
    changed,
    images,
    one_mask,
    taught_by,
    train,
)

from vfd.backbones import MaskedAutoencoder
from vfd.errors import UserError
from vfd.methods.g2sd import G2SDGeneric
from vfd.registry import MODELS

DEEP = dict(decoder_depth=4, decoder_embed_dim=20)  # of the teacher
WIDTH = DEEP['decoder_embed_dim']


def build(seed: int = 0, **options) -> G2SDGeneric:
    torch.manual_seed(seed)
    settings = dict(
        student=STUDENT, teacher=taught_by(**DEEP), teacher_layer=2, data_preprocessor=PREPROCESSOR
    )
    return MODELS.build(copy.deepcopy({'type': 'vfd.G2SDGeneric', **settings, **options})).train()


# ------------------------------------------------------------------------------------------------------ what runs


def test_the_teachers_decoder_stops_at_its_layer():
    model = build()
    network = model.teacher.network
    assert len(network.blocks) == 4 and len(network.decoder_blocks) == 2
    assert not hasattr(network, 'decoder_norm') and not hasattr(network, 'decoder_pred')
    counts = TokenCounts()
    counts.watch(
        **{f'block{k}': block for k, block in enumerate(network.blocks)},
        **{f'decoder{k}': block for k, block in enumerate(network.decoder_blocks)},
    )
    model(images(), None, mode='loss')
    assert counts == {
        **{f'block{k}': [1 + KEPT] for k in range(4)},
        **{f'decoder{k}': [1 + PATCHES] for k in range(2)},
    }


@pytest.mark.parametrize(('supervise', 'tokens'), [('all', 1 + PATCHES), ('masked', PATCHES - KEPT)])
def test_the_student_computes_the_tokens_that_count(supervise, tokens):
    model, counts = build(supervise=supervise), TokenCounts()
    first, last = model.student.decoder_blocks
    counts.watch(first=first.mlp, last=last.mlp, predictor=model.predictor)
    model(images(), None, mode='loss')
    assert counts == {'first': [1 + PATCHES], 'last': [tokens], 'predictor': [tokens]}


def test_no_pixel_head_is_built():
    names = set(build().state_dict())
    assert not any('decoder_norm' in name or 'decoder_pred' in name for name in names)
    assert {name.partition('.')[0] for name in names} == {'student', 'predictor'}


def test_a_step_leaves_the_teacher_alone():
    model = build(student=changed(STUDENT, drop_path_rate=0.5), teacher=taught_by(drop_path_rate=0.9, **DEEP))
    network = model.teacher.network
    assert not any(module.training for module in network.modules())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    mine = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, 2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    frozen = {name for name, value in model.state_dict().items() if torch.equal(value, mine[name])}
    assert frozen == {'student.pos_embed', 'student.decoder_pos_embed'}


@pytest.mark.parametrize('supervise', ['all', 'masked'])
def test_every_trainable_tensor_gets_a_gradient(supervise):
    """What DDP without find_unused_parameters needs."""
    model = build(supervise=supervise)
    model(images(), None, mode='loss')['loss_generic'].backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


# ------------------------------------------------------------------------------------------------- what is averaged


def sides(model: G2SDGeneric) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prediction and target (B, 1+L, Et), and which of L patches are hidden (B, L)."""
    mask = model.draw_mask(images())
    hidden = model.teacher(images(), ids_keep=mask.ids_keep)[model.tap]
    target = (hidden - hidden.mean(-1, keepdim=True)) / (
        hidden.var(-1, keepdim=True, unbiased=False) + 1e-6
    ).sqrt()
    latent, _ = model.student.forward_tokens(images(), mask.ids_keep)
    return model.predictor(model.student.decode(latent, mask.ids_keep)), target, mask.mask.bool()


@pytest.mark.parametrize('beta', [2.0, 0.5])
@pytest.mark.parametrize('supervise', ['all', 'masked'])
def test_the_mean_is_over_the_tokens_that_count(supervise, beta):
    """``all``: exactly B (1 + L) Et values, the class token's among them; ``masked``: B (L - K) Et."""
    model = one_mask(build(supervise=supervise, beta=beta))
    loss = model(images(), None, mode='loss')['loss_generic']
    predicted, target, hidden = sides(model)
    assert predicted.shape == target.shape == (4, 1 + PATCHES, WIDTH)
    gap = (predicted - target).abs()
    values = torch.where(gap < beta, gap.square() / (2 * beta), gap - beta / 2)
    assert (gap < beta).any() and (gap >= beta).any()
    if supervise == 'all':
        expected = values.sum() / (4 * (1 + PATCHES) * WIDTH)
    else:
        expected = values[:, 1:][hidden].sum() / (4 * (PATCHES - KEPT) * WIDTH)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_falls_on_a_few_images():
    model = one_mask(build())
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=3e-3)
    log = []
    for _ in range(40):
        loss = model(images(), None, mode='loss')['loss_generic']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.append(loss.item())
    assert sum(log[-5:]) < 0.7 * sum(log[:5]), log


def test_autocast_keeps_the_distance_in_float32():
    model = one_mask(build())
    exact = model(images(), None, mode='loss')['loss_generic']
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = model(images(), None, mode='loss')['loss_generic']
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact.item(), rel=0.05)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


# --------------------------------------------------------------------------------------------------------- mistakes


@pytest.fixture(scope='module')
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp('g2sd')
    torch.manual_seed(3)
    whole = MaskedAutoencoder(**{**TEACHER_NETWORK, **DEEP}).state_dict()
    states = {
        'full': whole,
        'encoder': {k: v for k, v in whole.items() if 'decoder' not in k and k != 'mask_token'},
        'short': {k: v for k, v in whole.items() if not k.startswith('decoder_blocks.1.')},
    }
    for name, state in states.items():
        torch.save({'model': state}, folder / f'{name}.pth')
    return {name: str(folder / f'{name}.pth') for name in states}


def test_a_file_of_the_encoder_alone_is_refused(files):
    build(teacher=taught_by(files['full'], **DEEP))
    with pytest.raises(UserError, match='but not its decoder') as error:
        build(teacher=taught_by(files['encoder'], **DEEP))
    for part in (files['encoder'], 'decoder.1', 'random decoder', 'mae_pretrain_vit_base_full.pth'):
        assert part in str(error.value)


def test_a_file_without_a_needed_decoder_block_is_refused_by_name(files):
    build(teacher=taught_by(files['short'], **DEEP), teacher_layer=1)
    with pytest.raises(
        UserError, match=r'Missing 12 of \d+ needed tensors: decoder_blocks\.1\.norm1\.weight'
    ):
        build(teacher=taught_by(files['short'], **DEEP))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(mask_ratio=0.95), 'leaves none of the 16 patches visible'),
        (dict(mask_ratio=0.0), 'hides none of the 16 patches'),
        (dict(mask_ratio=1.5), 'from 0 up to'),
        (dict(supervise='hidden'), 'one of "all", "masked"'),
        (dict(beta=0.0), 'greater than 0'),
        (dict(teacher_layer=0), 'counts decoder blocks, from 1'),
        (dict(teacher_layer=5), r'decoder\.0 to decoder\.3'),
        (dict(student=changed(STUDENT, img_size=64)), 'student has 64 patches, the teacher mae:32 16'),
        (dict(student=changed(STUDENT, patch_size=16, img_size=64)), r'built for images of 32x32 .* gets 64x64'),
        (dict(student=changed(STUDENT, img_size=30)), 'not divisible by patch_size 8'),
        (
            dict(teacher={**TEACHER, 'source': dict(type='vfd.TimmSource', model_name='test_vit', img_size=64)}),
            'tap "decoder.1"',
        ),
    ],
)  # fmt: skip
def test_mistakes_are_refused_before_the_first_step(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)
