"""G2SD's segmentation stage: losses of one batch, the frozen teacher, configs, training and resuming."""

from __future__ import annotations

import copy
import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from PIL import Image
from torch import Tensor

from vfd.apis import config as config_api
from vfd.apis import training
from vfd.engine.layer_decay import layer_id
from vfd.errors import UserError
from vfd.registry import MODELS, PARAM_SCHEDULERS
from vfd.teachers import Teacher

CONFIGS = Path(__file__).parents[2] / 'configs' / 'g2sd'
FILES = sorted(CONFIGS.glob('g2sd-seg*.py'))
FULL = [path for path in FILES if 'ade20k' in path.stem]
TINY = CONFIGS / 'g2sd-seg_tiny_1xb4-20i_folder-64x64.py'
SIDE = 64


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


@functools.cache
def read(path: Path):
    return config_api.load_config(path)


def load_config(path: Path):
    return copy.deepcopy(read(path))


def tiny() -> ConfigDict:
    return load_config(TINY).model


def build(model: dict | None = None):
    torch.manual_seed(0)
    return MODELS.build(model or tiny()).train()


def batch(model, count: int = 2) -> tuple[Tensor, list]:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(3)
    samples = []
    for _ in range(count):
        sample = SegDataSample(metainfo={'img_shape': (SIDE, SIDE), 'ori_shape': (SIDE, SIDE)})
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, SIDE, SIDE), generator=generator))
        samples.append(sample)
    images = [torch.randint(0, 256, (3, SIDE, SIDE), generator=generator).byte() for _ in range(count)]
    data = model.data_preprocessor({'inputs': images, 'data_samples': samples}, training=True)
    return data['inputs'], data['data_samples']


# ------------------------------------------------------------------------------------------------------- a batch


def test_losses_are_those_of_the_segmentor_and_the_distance_of_its_maps():
    model = build().eval()  # no dropout: both ways of asking agree
    images, samples = batch(model)
    losses = model.loss(images, samples)
    own = model.student.loss(images, samples)
    assert set(own) == {'decode.loss_ce', 'decode.acc_seg', 'aux.loss_ce', 'aux.acc_seg'}
    assert set(losses) == {*own, 'loss_cwd'}
    for name, value in own.items():
        torch.testing.assert_close(losses[name], value)
    network = model.teacher.network
    with torch.no_grad():
        teacher = network.decode_head(network.extract_feat(images))
    student = model.student(images, mode='tensor')
    assert student.shape == teacher.shape == (2, 3, 32, 32)  # four pixels a patch of 8
    spread, target = student.flatten(2).log_softmax(-1), teacher.flatten(2).softmax(-1)
    torch.testing.assert_close(losses['loss_cwd'], -3 * (spread * target).sum(-1).mean())


def test_the_decode_head_runs_once_a_step():
    model = build()
    calls = []
    model.student.decode_head.conv_seg.register_forward_hook(lambda *_: calls.append('student'))
    model.teacher.network.decode_head.conv_seg.register_forward_hook(lambda *_: calls.append('teacher'))
    model.loss(*batch(model))
    assert sorted(calls) == ['student', 'teacher']


def test_kl_is_named_so_and_no_auxiliary_head_is_needed():
    config = tiny()
    config.distill_loss = dict(type='vfd.ChannelWiseLoss', mode='kl')
    config.student.pop('auxiliary_head')
    model = build(config)
    assert set(model.loss(*batch(model))) == {'decode.loss_ce', 'decode.acc_seg', 'loss_kl'}


def test_the_teacher_is_eval_frozen_and_outside():
    model = build()
    network = model.teacher.network
    assert not network.with_auxiliary_head and not any(part.training for part in network.modules())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, samples = batch(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    weights = model.student.decode_head.conv_seg.weight.detach().clone()
    first = model.teacher(images)['seg_logits']
    sum(value for name, value in model.loss(images, samples).items() if 'loss' in name).backward()
    optimizer.step()
    assert not weights.equal(model.student.decode_head.conv_seg.weight)
    assert first.equal(model.teacher(images)['seg_logits']) and not first.requires_grad
    after = network.state_dict()
    assert all(value.equal(before[name]) for name, value in after.items())
    assert all(name.startswith('student.') for name in model.state_dict())
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(UserError, match='ids_keep'):
        model.teacher(images, ids_keep=torch.zeros(2, 1, dtype=torch.long))


def test_classes_that_differ_need_a_convolution_between_them():
    config = tiny()
    config.teacher.source.model.decode_head.num_classes = 5
    with pytest.raises(UserError, match=r'3 classes, the teacher 5.*align=\(3, 5\)'):
        build(config)
    config.distill_loss.align = (3, 5)
    model = build(config)
    losses = model.loss(*batch(model))
    losses['loss_cwd'].backward()
    assert model.distill_loss.align.weight.grad.abs().sum() > 0
    assert 'distill_loss.align.weight' in model.state_dict()
    config.distill_loss.align = (4, 5)
    with pytest.raises(UserError, match='student has 3'):
        build(config)


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda c: c.student.pop('decode_head'), 'one decode_head'),
        (lambda c: c.teacher.source.model.pop('decode_head'), 'one decode_head'),
        (lambda c: c.teacher.source.model.pop('data_preprocessor'), 'data_preprocessor'),
        (lambda c: c.teacher.update(checkpoint='pretrained'), 'weight file'),
        (lambda c: c.teacher.update(checkpoint='nowhere.pth'), 'nowhere.pth'),
        (
            lambda c: setattr(c.teacher, 'source', dict(type='vfd.TimmSource', model_name='test_vit')),
            'seg_logits',
        ),
    ],
)
def test_mistakes(change, text):
    config = tiny()
    change(config)
    with pytest.raises(UserError, match=text):
        build(config)


def test_maps_of_another_stride():
    config = tiny()
    # Sixteen patches instead of sixty-four: maps half as wide.
    config.teacher.source.model.backbone.patch_size = 16
    model = build(config)
    with pytest.raises(UserError, match=r'\(2, 3, 32, 32\).*\(2, 3, 16, 16\).*same stride'):
        model.loss(*batch(model))


# -------------------------------------------------------------------------------------------------- weight files


def test_a_distilled_student_and_a_released_file_are_teachers(tmp_path):
    model = build()
    teacher = model.teacher
    state = teacher.network.state_dict()
    released = {}
    for name, value in state.items():
        if name.endswith('q_bias'):
            stem = name.removesuffix('q_bias')
            released[f'{stem}qkv.bias'] = torch.cat([value, torch.ones_like(value), state[f'{stem}v_bias']])
            released[f'{stem}relative_position_index'] = torch.zeros(65, 65)
        elif not name.endswith('v_bias'):
            released[name] = value
    released['auxiliary_head.conv_seg.weight'] = torch.zeros(3, 16, 1, 1)
    distilled = {f'student.{name}': value for name, value in released.items()}
    distilled |= {f'teacher.{name}': torch.full_like(value, 3) for name, value in released.items()}
    distilled['student_decode_head_conv_seg'] = torch.zeros(2, 3, 8, 8)
    own = {f'student.{name}': value for name, value in state.items()}
    own['distill_loss.align.weight'] = torch.zeros(5, 3, 1, 1)
    images, _ = batch(model)
    config = tiny().teacher
    for number, content in enumerate((released, distilled, own)):
        path = tmp_path / f'{number}.pth'
        torch.save({'state_dict': content}, path)
        again = Teacher(config.source, str(path), taps=('seg_logits',))
        assert again.num_classes == 3 and not again.report.missing
        again.bind(model.data_preprocessor)
        torch.testing.assert_close(again(images)['seg_logits'], teacher(images)['seg_logits'])
    distilled.pop('student.decode_head.conv_seg.bias')
    torch.save({'state_dict': distilled}, path)
    with pytest.raises(UserError, match=r'conv_seg\.bias'):
        Teacher(config.source, str(path), taps=('seg_logits',))


# ------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize('path', FULL, ids=[path.stem for path in FULL])
def test_settings_are_the_published_ones(path):
    cfg = load_config(path)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    assert optimizer.betas == (0.9, 0.999)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and '-amp-' in path.stem
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay == 0.65
    assert cfg.train_cfg.max_iters == 160000
    assert cfg.train_dataloader.batch_size == 2 and cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.model.distill_loss.loss_weight == 3.0 and cfg.model.distill_loss.temperature == 1.0
    student, teacher = cfg.model.student, cfg.model.teacher.source.model
    width = 384 if 'vit-small' in path.stem else 192
    assert student.decode_head.channels == student.auxiliary_head.in_channels == width
    assert student.decode_head.in_channels == [width] * 4
    assert student.auxiliary_head.channels == 256 and student.auxiliary_head.loss_decode.loss_weight == 0.4
    assert student.backbone.drop_path_rate == 0.1 and student.backbone.out_indices == (3, 5, 7, 11)
    assert student.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
    large = 'vit-large' in path.stem
    assert teacher.backbone.out_indices == ((7, 11, 15, 23) if large else (3, 5, 7, 11))
    assert teacher.decode_head.channels == (1024 if large else 768)
    resize = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomResize')
    assert resize.ratio_range == (0.5, 2.0)
    first = CONFIGS / f'{Path(student.backbone.checkpoint).parent.name}.py'
    assert Path(student.backbone.checkpoint).name == f'epoch_{load_config(first).train_cfg.max_epochs}.pth'


@pytest.mark.parametrize('path', FULL, ids=[path.stem for path in FULL])
def test_models_build(path):
    cfg = load_config(path)
    teacher = {
        key: value for key, value in cfg.model.teacher.source.model.items() if key != 'data_preprocessor'
    }
    with torch.device('meta'):
        student, teacher = (MODELS.build(ConfigDict(model)).eval() for model in (cfg.model.student, teacher))
        maps, target = (model(torch.zeros(1, 3, 512, 512), mode='tensor') for model in (student, teacher))
    assert maps.shape == target.shape == (1, 150, 128, 128)
    # The first stage's student fits.
    first = load_config(CONFIGS / f'{Path(cfg.model.student.backbone.checkpoint).parent.name}.py')
    with torch.device('meta'):
        encoder = MODELS.build(first.model.student)
    for name, value in encoder.state_dict().items():
        if name.startswith('blocks.') and not name.endswith('qkv.bias'):
            assert student.backbone.get_parameter(name).shape == value.shape
    heads = encoder.blocks[0].attn.num_heads
    assert (
        student.backbone.blocks[0].attn.num_heads
        == heads
        == (6 if 'small' in path.stem else 12 if '-h12_' in path.stem else 3)
    )


def test_learning_rates_over_the_run():
    """mmcv 1.x: a straight line to 0, times the warm-up."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedules = [
        PARAM_SCHEDULERS.build(config, default_args={'optimizer': optimizer})
        for config in load_config(FULL[0]).param_scheduler
    ]
    for iteration in range(2501):
        warmup = 1 - (1 - iteration / 1500) * (1 - 1e-6) if iteration < 1500 else 1.0
        wanted = (1 - iteration / 160000) * warmup
        assert optimizer.param_groups[0]['lr'] == pytest.approx(wanted, rel=1e-9), iteration
        for schedule in schedules:
            schedule.step()


def test_layer_decay_reaches_every_parameter_once():
    config = load_config(TINY)
    config.model.distill_loss.align = (3, 3)
    model = build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = {}
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            assert id(parameter) not in seen
            seen[id(parameter)] = group
    assert set(seen) == set(names)
    for key, name in names.items():
        group = seen[key]
        assert group['lr'] == pytest.approx(1e-3 * 0.65 ** (5 - layer_id(name, 4))), name
        decayed = model.get_parameter(name).ndim > 1  # tables, positions and the class token, too
        assert (group['weight_decay'] == 0.05) == decayed, name
    rates = {name: seen[key]['lr'] for key, name in names.items()}
    assert rates['distill_loss.align.weight'] == rates['student.backbone.fpn1.0.weight'] == 1e-3
    assert rates['student.backbone.cls_token'] == pytest.approx(1e-3 * 0.65**5)


# ------------------------------------------------------------------------------------------------------ training


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """``data/seg-small`` in the current directory, as the small config wants it."""
    monkeypatch.chdir(tmp_path)
    # mmengine lays out the config afresh for every log and checkpoint, which takes longer than the training.
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, False))
    rng = np.random.default_rng(0)
    for part, count in (('train', 6), ('val', 2)):
        for kind in ('images', 'labels'):
            (tmp_path / 'data/seg-small' / part / kind).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 120, (70, 90, 3), dtype=np.uint8)
            label = np.zeros((70, 90), dtype=np.uint8)
            row, column = rng.integers(5, 40, 2)
            y, x = np.ogrid[:70, :90]
            disc = (y - row - 10) ** 2 + (x - column) ** 2 < 120
            image[disc], label[disc] = (200, 60, 60), 1
            image[row : row + 15, column + 20 : column + 40] = (60, 60, 220)
            label[row : row + 15, column + 20 : column + 40] = 2
            label[:2] = 255
            root = tmp_path / 'data/seg-small' / part
            Image.fromarray(image).save(root / f'images/{number}.png')
            Image.fromarray(label).save(root / f'labels/{number}.png')
    return tmp_path


def run(work_dir: Path, resume: bool | str = False, **options):
    common = {'train_cfg.max_iters': 4, 'train_cfg.val_interval': 4, 'default_hooks.checkpoint.interval': 2}
    options = {**common, 'randomness.seed': 7, 'visualizer.vis_backends': [], **options}
    return training.train(TINY, work_dir, options=options, resume=resume)


def test_train_a_moment_and_resume(folder):
    """What a run interrupted after two iterations comes to is what the uninterrupted run came to."""
    whole = run(folder / 'whole')
    assert 0 <= whole.message_hub.get_scalar('val/mIoU').current() <= 100
    assert np.isfinite(whole.message_hub.get_scalar('train/loss_cwd').current())
    (folder / 'part').mkdir()
    shutil.copy(folder / 'whole/iter_2.pth', folder / 'part')
    run(folder / 'part', resume=str(folder / 'part/iter_2.pth'))
    states = [
        torch.load(folder / name, weights_only=True)['state_dict']
        for name in ('whole/iter_4.pth', 'part/iter_4.pth', 'whole/iter_2.pth')
    ]
    assert all(list(state) == list(states[0]) for state in states)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert any(not torch.equal(value, states[2][name]) for name, value in states[0].items())
    assert all(name.startswith('student.') for name in states[0])


def test_the_generic_stage_is_where_it_starts(folder):
    config = load_config(TINY).model.student.backbone
    encoder = MODELS.build(
        dict(
            type='vfd.MaskedAutoencoder', img_size=32, patch_size=8, embed_dim=config.embed_dim, depth=4, num_heads=2,
            decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2,
        )
    )  # fmt: skip
    state = {f'student.{name}': value for name, value in encoder.state_dict().items()}
    torch.save({'state_dict': state, 'meta': {}}, folder / 'generic.pth')
    options = {'model.student.backbone.checkpoint': str(folder / 'generic.pth'), 'train_cfg.max_iters': 1}
    options['optim_wrapper.optimizer.lr'] = 0.0
    backbone = run(folder / 'run', **options).model.student.backbone
    for name in ('blocks.2.mlp.fc1.weight', 'patch_embed.proj.bias', 'cls_token'):
        assert backbone.get_parameter(name).equal(encoder.get_parameter(name))
    assert backbone.pos_embed.shape[1] == 65 and backbone.pos_embed[:, 0].equal(encoder.pos_embed[:, 0])
    (folder / 'generic.pth').unlink()
    metrics = training.test(TINY, folder / 'run/iter_1.pth', folder / 'test', options={**options})
    assert 0 <= metrics['mIoU'] <= 100
