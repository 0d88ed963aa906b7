"""PH-Reg as a model: what trains, what does not, what it answers, and what a run does."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement
from ph_reg_toy import CLIP, NETWORKS, PATCH, SIDE, VIT, build, images, teacher_config
from torch.utils.data import Dataset

from vfd.engine import Runner
from vfd.errors import UserError
from vfd.methods.ph_reg.core import cosine_loss, squared_loss
from vfd.methods.ph_reg.views import draw_seeds
from vfd.registry import MODELS

BOTH = pytest.mark.parametrize('kind', ['vit', 'clip'])


def optimizer(model) -> OptimWrapper:
    return OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01))


# ------------------------------------------------------------------------------------------------------ what trains


def test_the_published_tensors_train_in_a_vit():
    last = {f'blocks.2.{name}' for name, _ in build().student.blocks[2].named_parameters()}
    trained = {name for name, p in build().student.named_parameters() if p.requires_grad}
    assert trained == {'reg_token', 'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias', *last}


def test_the_published_tensors_train_in_clip():
    student = build('clip').student
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    blocks = {
        f'transformer.resblocks.1.{name}' for name, _ in student.transformer.resblocks[1].named_parameters()
    }
    last = {
        f'transformer.resblocks.2.{part}'
        for part in (
            'ln_1.weight', 'ln_1.bias', 'attn.in_proj_weight', 'attn.in_proj_bias', 'attn.out_proj.weight',
            'attn.out_proj.bias',
        )
    }  # fmt: skip
    assert trained == {'register_tokens', 'positional_embedding', 'conv1.weight', *blocks, *last}


@BOTH
def test_after_steps_frozen_tensors_are_bit_identical_and_all_others_moved(kind):
    model = build(kind)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    taught = {name: p.clone() for name, p in model.teacher.network.state_dict().items()}
    wrapper = optimizer(model)
    for _ in range(2):
        wrapper.update_params(sum(model(images(), None, mode='loss').values()))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    assert all(torch.equal(p, taught[name]) for name, p in model.teacher.network.state_dict().items())


@BOTH
def test_every_trained_tensor_gets_a_gradient(kind):
    """So that distributed training need not look for unused ones."""
    model = build(kind)
    sum(model(images(), None, mode='loss').values()).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_queries_and_keys_of_clips_last_block_get_none():
    model = build('clip')
    sum(model(images(), None, mode='loss').values()).backward()
    gradient = model.student.transformer.resblocks[-1].attn.in_proj_weight.grad
    width = gradient.shape[1]
    assert gradient[: 2 * width].abs().max() == 0 and gradient[2 * width :].abs().max() > 0


@BOTH
def test_the_published_number_of_blocks_is_the_default(kind):
    given = NETWORKS[kind]['student']
    student = {name: value for name, value in given.items() if name != 'unlock_last_blocks'}
    model = MODELS.build(
        dict(type='vfd.PHReg', student=student, teacher=teacher_config(NETWORKS[kind]['teacher']))
    )
    blocks = model.student.blocks_of()
    trained = [any(p.requires_grad for p in block.parameters()) for block in blocks]
    assert trained.count(True) == given['unlock_last_blocks'] < len(blocks)
    everything = build(kind, student=dict(unlock_last_blocks=None)).student
    unread = {id(parameter) for parameter in everything.idle()}
    assert all(p.requires_grad == (id(p) not in unread) for p in everything.parameters())


@pytest.mark.parametrize(('blocks', 'trained'), [(0, 0), (2, 2), (3, 3)])
def test_the_number_of_unlocked_blocks(blocks, trained):
    student = build(student=dict(unlock_last_blocks=blocks)).student
    assert [any(p.requires_grad for p in b.parameters()) for b in student.blocks].count(True) == trained
    assert not student.norm.weight.requires_grad and not student.cls_token.requires_grad


# ------------------------------------------------------------------------------------------------------------ start


@BOTH
def test_the_student_starts_from_the_teacher(kind):
    model = build(kind)
    mine, theirs = model.student.state_dict(), model.teacher.network.state_dict()
    assert set(mine) - set(theirs) == {'reg_token' if kind == 'vit' else 'register_tokens'}
    same = [name for name in theirs if mine[name].shape == theirs[name].shape]
    assert all(torch.equal(mine[name], theirs[name]) for name in same)
    assert len(theirs) - len(same) == (1 if kind == 'clip' else 0)  # CLIP's positions, interpolated once
    registers = model.student.reg_token if kind == 'vit' else model.student.register_tokens
    assert registers.shape[-2] == 3 and 0.5 < registers.std() * 24**0.5 < 2


def test_the_checkpoint_holds_the_student_alone():
    names = build().state_dict()
    assert names and all(name.startswith('student.') for name in names)


# ----------------------------------------------------------------------------------------------------------- answers


@BOTH
def test_losses_are_those_of_teacher_and_student(kind):
    model = build(kind, mse_scale=0.5)
    torch.manual_seed(4)
    losses = model(images(), None, mode='loss')
    torch.manual_seed(4)
    target = model.teacher(images(), seed=draw_seeds(2))['dense']
    ours = model.student.dense(images())
    assert set(losses) == {'loss_cos', 'loss_mse'}
    torch.testing.assert_close(losses['loss_cos'], cosine_loss(ours, target))
    torch.testing.assert_close(losses['loss_mse'], squared_loss(ours, target, 0.5))


@BOTH
def test_other_modes_never_ask_the_teacher(kind):
    model = build(kind).eval()
    model.teacher = None
    batch = images(2, 2 * PATCH, 3 * PATCH)
    (first, second) = model(batch, None, mode='predict')
    width = model.student.out_channels
    assert first.pred_features.shape == second.pred_features.shape == (width, 2, 3)
    assert model(batch, None, mode='tensor').shape == (2, 1 + 3 + 6, width)


@BOTH
def test_losses_fall_on_a_few_images(kind):
    model = build(kind, student=dict(num_registers=2))
    wrapper, log = optimizer(model), []
    for _ in range(40):
        torch.manual_seed(0)  # the same views
        losses = model(images(), None, mode='loss')
        log.append(sum(losses.values()).item())
        wrapper.update_params(sum(losses.values()))
    assert log[-1] < 0.7 * log[0]


@BOTH
def test_autocast_keeps_losses_in_float32(kind):
    model = build(kind)
    torch.manual_seed(0)
    exact = model(images(), None, mode='loss')
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model(images(), None, mode='loss')
    assert {value.dtype for value in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    for name, value in losses.items():
        assert value.item() == pytest.approx(exact[name].item(), rel=0.1, abs=0.01)


# ------------------------------------------------------------------------------------------------------------ a run


class Photos(Dataset):
    """Images in memory under names; the image ``bad`` is not a number."""

    metainfo: dict = {}  # noqa: RUF012

    def __init__(self, bad: int | None = None) -> None:
        self.images = 127 + 50 * images(8)
        if bad is not None:
            self.images[bad, 0, 0, 0] = float('nan')

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        sample = BaseDataElement(metainfo={'img_path': f'photos/{index}.png'})
        return {'inputs': self.images[index], 'data_samples': sample}


def runner(work_dir, bad: int | None = None, action: str = 'skip', epochs: int = 2) -> Runner:
    return Runner(
        model=build(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Photos(bad), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=dict(
            type='vfd.ShiftedExponentialByIter', eta_min_ratio=0.01, by_epoch=True, convert_to_iter_based=True
        ),
        default_hooks=dict(non_finite=dict(type='vfd.NonFiniteHook', action=action)),
        default_scope='mmpretrain',
        log_level='ERROR',
        experiment_name=work_dir.name,
    )


def rates_of(run: Runner) -> list[float]:
    rates = []
    step = run.model.train_step

    def watched(data, optim_wrapper):
        rates.append(optim_wrapper.get_lr()['lr'][0])
        return step(data, optim_wrapper)

    run.model.train_step = watched
    run.train()
    return rates


def test_features_that_are_not_a_number_skip_the_batch_and_the_change_of_the_rate(tmp_path):
    """The batch that begins the second epoch is bad: the next one still has the rate of the first epoch."""
    whole = rates_of(runner(tmp_path / 'whole'))
    high, middle, low = 1e-3, 1e-4, 1e-5
    assert whole == pytest.approx([high, *[middle] * 4, *[low] * 3], rel=1e-9)
    run = runner(tmp_path / 'bad', bad=1)  # of the first batch in each epoch
    assert rates_of(run) == pytest.approx([high, high, *[middle] * 4, low, low], rel=1e-9)
    assert all(torch.isfinite(value).all() for value in run.bare_model.state_dict().values())


def test_or_they_end_the_run_with_the_files_named(tmp_path):
    with pytest.raises(UserError, match=r'iteration 2 .*loss_cos = nan.*photos/2\.png, photos/3\.png'):
        runner(tmp_path, bad=3, action='stop').train()


# ---------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(student=dict(num_registers=-1)), 'num_registers=-1'),
        (dict(student=dict(pos_interp='scale1')), 'did you mean "scale01"'),
        (dict(student=dict(unlock_last_blocks=4)), 'the network has 3 blocks'),
        (dict(student=dict(patch_size=6)), 'patch_size is 6 in the student and 7'),
        (dict(student=dict(embed_dim=32)), 'out_channels is 32 in the student and 24'),
        (dict(student=dict(model_name='vit_small_patch14_dinov3')), 'did you mean "vit_small_patch1'),
        (dict(student=dict(model_name='vit_small_patch14_reg4_dinov2')), 'no registers of its own'),
        (dict(student=dict(model_name='vit_base_patch16_siglip_224')), 'plain vision transformer'),
        (dict(student=dict(reg_tokens=4)), 'sets reg_tokens itself'),
        (dict(student=dict(patch_drop_rate=0.5)), 'leave patch_drop_rate out'),
        (dict(student=dict(act_layer='relu')), r'activation is ReLU\(\) in the student and GELU'),
        (dict(student=dict(width=3)), 'does not take these arguments'),
        (dict(teacher=dict(source=dict(type='vfd.DenseSource', network=dict(CLIP, embed_dim=24)))), 'not of one kind'),
    ],
)  # fmt: skip
def test_mistakes_are_refused_before_the_first_step(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(head='naklip'), 'did you mean "naclip"'),
        (dict(last_block='half'), 'last_block='),
        (dict(model_name='ViT-B-61'), 'did you mean "ViT-'),
        (dict(model_name='ViT-B-16-SigLIP', vision_cfg={}), 'no plain CLIP transformer'),
        (dict(img_size=43), 'no multiple of the patch size 7'),
        (dict(pretrained=True, tag='openai', model_name='ViT-B-16'), 'that ends in -quickgelu'),
        (
            dict(pretrained=True, tag='laion2b_s34b_b88k', model_name='ViT-B-16', quick_gelu=True),
            'trained with the exact GELU, ViT-B-16 is built with the quick',
        ),
        (dict(quick_gelu=False), r'activation is GELU.* in the student and QuickGELU'),
        (dict(pretrained=True), 'name the published weights with tag'),
    ],
)
def test_mistakes_of_clip_are_named(options, message):
    with pytest.raises(UserError, match=message):
        build('clip', student=options)


def test_other_teachers_and_students_are_refused():
    teacher = dict(
        type='vfd.Teacher',
        source=dict(type='vfd.DenseSource', network=VIT),
        checkpoint='random',
        taps=['dense'],
    )
    with pytest.raises(UserError, match=r'has to be a vfd\.DenoisedTeacher'):
        MODELS.build(dict(type='vfd.PHReg', student=VIT, teacher=teacher))
    with pytest.raises(UserError, match=r'student\.type=None'):
        MODELS.build(dict(type='vfd.PHReg', student=dict(num_registers=3), teacher=teacher_config()))
    resnet = dict(type='mmpretrain.ResNet', depth=18)
    with pytest.raises(UserError, match=r'vfd\.RegisterViT or vfd\.RegisterCLIP'):
        MODELS.build(dict(type='vfd.PHReg', student=resnet, teacher=teacher_config()))


def test_batches_that_do_not_fit_are_explained():
    with pytest.raises(UserError, match='default_collate'):
        build()([*images()], None, mode='loss')
    with pytest.raises(UserError, match='multiple'):
        build()(images(2, SIDE + 1, SIDE), None, mode='loss')
    smaller = build(teacher=dict(input_size=4 * PATCH))
    with pytest.raises(UserError, match=r'the student gives \(36, 24\) an image, the teacher \(16, 24\)'):
        smaller(images(), None, mode='loss')
