"""G2SD for classification: losses, teacher, what is refused; configs that fine-tune, a moment of training."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from PIL import Image

from vfd.apis.config import load_config
from vfd.apis.training import train
from vfd.errors import MissingFileError, UserError
from vfd.losses import NKDLoss
from vfd.registry import MODELS
from vfd.stores import StoreWriter

CLASSES = 5
VIT = {'img_size': 32, 'patch_size': 8, 'embed_dim': 24, 'depth': 2, 'num_heads': 2}
PLAIN = {'type': 'vfd.ViTClassifier', 'model_name': 'vit_tiny_patch16_224', 'num_classes': CLASSES, **VIT}
TOKEN = {**PLAIN, 'model_name': 'vit_tiny_patch16_224_dist_token'}
PREPROCESSOR = {
    'type': 'mmpretrain.ClsDataPreprocessor',
    'num_classes': CLASSES,
    'mean': [123.675, 116.28, 103.53],
    'std': [58.395, 57.12, 57.375],
    'to_rgb': True,
}
MIXING = {
    'augments': [
        {'type': 'mmpretrain.Mixup', 'alpha': 0.8},
        {'type': 'mmpretrain.CutMix', 'alpha': 1.0},
    ]
}


def build(config: dict, **options):
    torch.manual_seed(0)
    return MODELS.build(copy.deepcopy({**config, **options}))


def teacher_config(classes: int = CLASSES, **options) -> dict:
    source = {
        'type': 'vfd.TimmSource', 'model_name': 'vit_base_patch16_224.mae', 'global_pool': 'avg',
        'num_classes': classes, **VIT, **options,
    }  # fmt: skip
    return {'type': 'vfd.Teacher', 'source': source, 'checkpoint': 'random'}


def g2sd(student: dict = TOKEN, **options):
    options.setdefault('teacher', teacher_config())
    options.setdefault('data_preprocessor', PREPROCESSOR)
    return build({'type': 'vfd.G2SDClassifier', 'student': student, **options}).train()


def images(seed: int = 0, count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def samples(labels) -> list[DataSample]:
    return [DataSample().set_gt_label(label) for label in labels]


# ----------------------------------------------------------------------------------------------- G2SDClassifier


def test_both_losses_have_a_weight_of_one_half():
    model = g2sd()
    logits, token_logits = model.student.model.forward_heads(images())
    losses = model(images(), samples([0, 1, 2, 3]), mode='loss')
    assert list(losses) == ['loss_gt', 'loss_distill']
    label = torch.tensor([0, 1, 2, 3])
    teacher = model.teacher.network(images()).argmax(1)
    assert losses['loss_gt'].item() == pytest.approx(
        0.5 * F.cross_entropy(logits, label, label_smoothing=0.1).item(), rel=1e-5
    )
    assert losses['loss_distill'].item() == pytest.approx(
        0.5 * F.cross_entropy(token_logits, teacher).item(), rel=1e-5
    )
    sum(losses.values()).backward()
    network = model.student.model
    assert all(
        parameter.grad is not None and parameter.grad.any()
        for parameter in (
            network.dist_token,
            network.head.weight,
            network.head_dist.weight,
            network.pos_embed,
        )
    )


def test_the_answer_is_the_mean_of_both_heads():
    model = g2sd().eval()
    logits, token_logits = model.student.model.forward_heads(images())
    mean = (logits + token_logits) / 2
    torch.testing.assert_close(model(images(), mode='tensor'), mean)
    predicted = model(images(), samples([0] * 4), mode='predict')
    torch.testing.assert_close(torch.stack([s.pred_score for s in predicted]), mean.softmax(1))


def test_the_token_is_last_and_has_no_position():
    network = build(TOKEN).model.eval()
    tokens = network._pos_embed(network.patch_embed(images()))
    assert tokens.shape == (4, 1 + 16 + 1, 24) and network.pos_embed.shape == (1, 1 + 16, 24)
    assert tokens[:, -1].equal(network.dist_token[:, 0].expand(4, -1))
    torch.testing.assert_close(tokens[:, :-1], timm_tokens(network))


def timm_tokens(network) -> torch.Tensor:
    patches = network.patch_embed(images())
    return torch.cat([network.cls_token.expand(4, -1, -1), patches], dim=1) + network.pos_embed


def test_nkd_replaces_both_losses():
    model = g2sd(PLAIN, distill_loss={'type': 'vfd.NKDLoss', 'temperature': 2.0, 'alpha': 1.5})
    losses = model(images(), samples([0, 1, 2, 3]), mode='loss')
    assert list(losses) == ['loss_nkd']
    expected = NKDLoss(2.0, 1.5)(
        model.student.model(images()), model.teacher.network(images()), torch.tensor([0, 1, 2, 3])
    )
    assert losses['loss_nkd'].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_teacher_sees_the_mixed_images():
    model = g2sd(data_preprocessor={**PREPROCESSOR, 'batch_augments': MIXING})
    seen = []
    model.teacher.network.patch_embed.register_forward_pre_hook(lambda part, args: seen.append(args[0]))
    np.random.seed(0)
    data = {'inputs': (255 * torch.rand(4, 3, 32, 32)), 'data_samples': samples([0, 1, 2, 3])}
    batch = model.data_preprocessor(data, training=True)
    losses = model(**batch, mode='loss')
    torch.testing.assert_close(seen[0], batch['inputs'])
    target = torch.stack([sample.gt_score for sample in batch['data_samples']])
    logits, _ = model.student.model.forward_heads(batch['inputs'])
    assert losses['loss_gt'].item() == pytest.approx(
        0.5 * F.cross_entropy(logits, target, label_smoothing=0.1).item(), rel=1e-5
    )


def test_the_teacher_is_deterministic_whatever_the_student_drops():
    model = g2sd(TOKEN | {'drop_path_rate': 0.5}, teacher=teacher_config(drop_path_rate=0.5)).train()
    state = {name: value.clone() for name, value in model.teacher.network.state_dict().items()}
    first, second = (model.teacher(images())['logits'] for _ in range(2))
    assert first.equal(second) and not model.teacher.network.training
    heads = [model.student.model.forward_heads(images())[1] for _ in range(8)]
    assert any(not head.equal(heads[0]) for head in heads)
    losses = model(images(), samples([0] * 4), mode='loss')
    sum(losses.values()).backward()
    assert all(value.equal(state[name]) for name, value in model.teacher.network.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in model.teacher.network.parameters())
    assert all(name.startswith('student.') for name in model.state_dict())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'teacher': teacher_config(classes=7)}, r'5 classes, the teacher 7.*num_classes=7'),
        (
            {'student': TOKEN | {'global_pool': 'avg'}},
            'global_pool="avg" does not go with a distillation token',
        ),
        ({'student': PLAIN}, 'no distillation token'),
        ({'distill_loss': {'type': 'vfd.NKDLoss'}}, 'nothing would train the distillation token'),
        ({'distill_loss': {'type': 'vfd.NKDLoss'}, 'label_smoothing': 0.1}, 'label_smoothing does nothing'),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        g2sd(**options)


def test_stored_answers_are_refused(tmp_path):
    fields = {'logits': ('float32', (CLASSES,))}
    with StoreWriter(tmp_path / 'store', fields, {'teacher': 'x'}) as writer:
        writer.append(['a.png'], logits=np.zeros((1, CLASSES)))
    teacher = {'type': 'vfd.StoredTeacher', 'store': str(tmp_path / 'store'), 'data_root': str(tmp_path)}
    with pytest.raises(UserError, match='stored teacher'):
        g2sd(teacher=teacher)


# ------------------------------------------------------------------------------------------------------ configs

CONFIGS = Path(__file__).parents[2] / 'configs'
FILES = sorted([*CONFIGS.glob('dmae/*finetune*.py'), *CONFIGS.glob('g2sd/g2sd-cls_*.py')])
FULL = [path for path in FILES if '_tiny_' not in path.stem]
TINY = [path for path in FILES if '_tiny_' in path.stem]
# beginning of the name: epochs, warm-up, learning rate, layer decay, drop path (as published)
PUBLISHED = {
    'g2sd-cls_': (200, 5, 4e-3, 0.75, 0.0),
    'dmae-finetune_': (100, 20, 2e-3, 0.75, 0.15),
    'mae-finetune_vit-base': (100, 5, 2e-3, 0.65, 0.1),
    'mae-finetune_vit-large': (50, 5, 4e-3, 0.75, 0.2),
    'mae-finetune_vit-huge': (50, 5, 4e-3, 0.75, 0.3),
}
WIDTHS = {'vit-tiny': (192, 3), 'vit-tiny-h12': (192, 12), 'vit-small': (384, 6), 'vit-base': (768, 12)}
WIDTHS |= {'vit-large': (1024, 16), 'vit-huge': (1280, 16)}


def stems(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


def test_all_published_settings_have_a_config():
    assert len(FULL) == 10 and len(TINY) == 2


@pytest.mark.parametrize('path', FULL, ids=stems(FULL))
def test_settings_are_the_published_ones(path):
    cfg = load_config(path)
    begin = next(begin for begin in PUBLISHED if path.stem.startswith(begin))
    epochs, warmup, lr, layer_decay, drop_path = PUBLISHED[begin]
    optimizer, student = cfg.optim_wrapper.optimizer, cfg.model.get('student', cfg.model)
    assert (cfg.train_cfg.max_epochs, cfg.param_scheduler.warmup) == (epochs, warmup)
    assert f'-{epochs}e_' in path.stem
    assert (optimizer.type, optimizer.lr, tuple(optimizer.betas)) == ('AdamW', lr, (0.9, 0.999))
    assert optimizer.weight_decay == 0.05 and cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert lr * cfg.param_scheduler.eta_min_ratio == pytest.approx(1e-6)
    assert cfg.optim_wrapper.constructor == 'vfd.LayerDecay'
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay == layer_decay
    assert student.get('drop_path_rate', 0.0) == drop_path
    assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 1024
    if '_nkd_' in path.stem:  # reads the class of a label alone
        assert cfg.model.distill_loss.type == 'vfd.NKDLoss' and cfg.model.label_smoothing is None
    else:
        smoothing = cfg.model.get('label_smoothing') or cfg.model.loss.label_smooth_val
        assert smoothing == 0.1 and cfg.model.get('distill_loss') is None


@pytest.mark.parametrize('path', FULL, ids=stems(FULL))
def test_students_build_and_start_from_a_config_of_the_tree(path):
    cfg = load_config(path)
    student = cfg.model.get('student', cfg.model)
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        network = MODELS.build(student).model
    size, patch = re.search(r'_(vit-\w+(?:-h12)?)-p(\d\d)', path.stem).groups()
    assert network.patch_embed.patch_size == (int(patch),) * 2
    assert (network.embed_dim, network.blocks[0].attn.num_heads) == WIDTHS[size]
    assert network.num_classes == 1000
    if path.stem.startswith('mae-'):
        assert student.checkpoint.startswith('checkpoints/mae_pretrain_')
        return
    _, stem, file = Path(student.checkpoint).parts
    before = load_config(path.with_name(f'{stem}.py'))
    assert file == f'epoch_{before.train_cfg.max_epochs}.pth'
    with torch.device('meta'):
        encoder = MODELS.build(before.model.student)
    shapes = {name: value.shape for name, value in encoder.state_dict().items()}
    new = ('head', 'fc_norm', 'dist_token')
    for name, value in network.state_dict().items():
        assert name.startswith(new) or shapes[name] == value.shape, name
    assert encoder.blocks[0].attn.num_heads == network.blocks[0].attn.num_heads


METAFILES = ('dmae/metafile.yml', 'g2sd/metafile.yml')


def test_the_metafiles_name_every_full_scale_config():
    listed = [
        model
        for name in (*METAFILES, 'dmae/part_finetune.yml', 'g2sd/part_classification.yml')
        if (CONFIGS / name).is_file()
        for model in yaml.safe_load((CONFIGS / name).read_text())['Models']
    ]
    by_name = {model['Name']: model for model in listed}
    for path in FULL:
        assert by_name[path.stem]['Config'] == path.relative_to(CONFIGS.parent).as_posix()


# ------------------------------------------------------------------------------------------------------ training


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """``data/folder`` in the current directory, as the small configs want it: ten classes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part, count in (('train', 2), ('val', 1)):
        for label in range(10):
            target = tmp_path / 'data/folder' / part / f'class{label}'
            target.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(target / f'{number}.png')
    return tmp_path


@pytest.mark.parametrize('path', TINY, ids=stems(TINY))
def test_g2sd_classification_trains_a_moment_and_resumes(path, folder):
    """It starts from the student of its pre-training; interrupted after an epoch it ends where the whole run does."""
    cfg = load_config(path)
    student = cfg.model.get('student', cfg.model)
    before = load_config(path.with_name(f'{Path(student.checkpoint).parent.name}.py'))
    assert Path(student.checkpoint).name == f'epoch_{before.train_cfg.max_epochs}.pth'
    encoder = MODELS.build(before.model.student).state_dict()
    checkpoint = folder / student.checkpoint
    checkpoint.parent.mkdir(parents=True)
    torch.save({'state_dict': {f'student.{name}': value for name, value in encoder.items()}}, checkpoint)

    options = {
        'train_cfg.max_epochs': 2,
        'train_cfg.val_interval': 1,
        'default_hooks.checkpoint.interval': 1,
        'visualizer.vis_backends': [],
        'randomness.seed': 7,
    }
    runner = train(path, folder / 'whole', options=options)
    losses = ('loss_gt', 'loss_distill') if 'g2sd' in path.stem else ('loss',)
    assert all(np.isfinite(runner.message_hub.get_scalar(f'train/{name}').current()) for name in losses)
    assert 0 <= runner.message_hub.get_scalar('val/accuracy/top1').current() <= 100
    checkpoint.unlink()  # only a fresh start reads it
    (folder / 'part').mkdir()
    shutil.copy(folder / 'whole/epoch_1.pth', folder / 'part/epoch_1.pth')
    with pytest.raises(MissingFileError):
        train(path, folder / 'fresh', options=options)
    resumed_options = options | {f'{"model.student" if "student" in cfg.model else "model"}.checkpoint': None}
    train(path, folder / 'part', options=resumed_options, resume=str(folder / 'part/epoch_1.pth'))
    whole, resumed, first = (
        torch.load(folder / name, weights_only=True)['state_dict']
        for name in ('whole/epoch_2.pth', 'part/epoch_2.pth', 'whole/epoch_1.pth')
    )
    assert list(whole) == list(resumed) and not any(name.startswith('teacher') for name in whole)
    assert all(whole[name].equal(resumed[name]) for name in whole)
    assert any(not whole[name].equal(first[name]) for name in whole)
    near = 'student.' if 'student' in cfg.model else ''
    assert (first[f'{near}pos_embed'] - encoder['pos_embed']).abs().max() < 0.05  # not drawn anew
