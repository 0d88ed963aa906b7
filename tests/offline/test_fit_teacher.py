"""A teacher fitted to labelled images: measured on held-out ones, and run as it was measured."""

import argparse
import logging
import shutil

import cv2
import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open

from vfd.cli import fit_teacher as command
from vfd.errors import UserError
from vfd.offline import fit_teacher as api
from vfd.registry import MODELS
from vfd.teachers import Normalization, Teacher, TeacherCard

CLASSES = {'blue': (200, 40, 40), 'green': (40, 200, 40), 'red': (40, 40, 200)}  # BGR
CNN = dict(type='vfd.TimmSource', model_name='test_resnet')


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Noisy squares of three colours, 12 of each, one of them broken."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp('colours')
    for name, colour in CLASSES.items():
        (folder / name).mkdir()
        for number in range(12):
            picture = np.clip(rng.normal(colour, 30, (40, 48, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / f'{number:02d}.png'), picture)
    (folder / 'red/11.png').write_bytes(b'no image')
    return folder


@pytest.fixture(scope='module')
def made(images, tmp_path_factory):
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp('made') / 'teacher.safetensors'
    teacher = {'source': dict(CNN, num_classes=7), 'checkpoint': 'random', 'input_size': 96}
    return api.fit_teacher(
        teacher, api.class_folders(images), out, val_fraction=0.25, workers=0, device='cpu'
    )


def test_it_is_measured_on_images_that_were_held_out(made):
    assert made.card.accuracy > 0.8 and made.card.held_out == 9 and made.skipped == 1
    assert made.card.classes == ('blue', 'green', 'red') and made.card.bn == 'eval'


def test_the_file_says_how_it_has_to_be_run(made):
    with safe_open(made.out, framework='pt') as file:
        metadata = file.metadata()
    assert TeacherCard.read(metadata, 'x') == made.card
    teacher = Teacher(CNN, str(made.out))  # nothing but the network's name
    assert (teacher.input_size, teacher.bn, teacher.num_classes) == (96, 'eval', 3)
    assert teacher.classes == ('blue', 'green', 'red')
    assert f'{made.card.accuracy:.3f}' in teacher.summary()['teacher accuracy']
    pixels = torch.rand(2, 3, 40, 40)
    resized = torch.nn.functional.interpolate(pixels, (96, 96), mode='bicubic', antialias=True)
    torch.testing.assert_close(teacher(pixels)['logits'], teacher.network(resized))


def test_its_tensors_are_those_of_timm(made):
    import timm
    from safetensors.torch import load_file

    timm.create_model('test_resnet', num_classes=3).load_state_dict(load_file(made.out))


def test_an_argument_that_contradicts_the_file_wins_with_a_warning(made, monkeypatch):
    shown = []
    monkeypatch.setattr(
        'vfd.teachers.teacher.print_log', lambda text, logger, level: shown.append((text, level))
    )
    teacher = Teacher(CNN, str(made.out), input_size=64, bn='train')
    assert (teacher.input_size, teacher.bn) == (64, 'train')
    assert [level for _, level in shown] == [logging.WARNING] * 2
    assert '64' in shown[0][0] and '96' in shown[0][0] and 'train' in shown[1][0]
    Teacher(CNN, str(made.out), input_size=96, bn='eval')
    assert len(shown) == 2


def test_ssld_runs_it_with_the_batch_norm_it_was_measured_with(made):
    """Its own default is the statistics of the batch, as published."""
    model = MODELS.build(
        dict(
            type='vfd.SSLDDistiller',
            student=dict(type='mmpretrain.TimmClassifier', model_name='test_resnet', num_classes=3),
            teacher=dict(type='vfd.Teacher', source=CNN, checkpoint=str(made.out)),
        )
    )
    assert model.teacher.bn == 'eval'


def test_the_normalisation_of_the_file_counts(made, tmp_path):
    """The same network under another name may have another one."""
    from safetensors.torch import load_file, save_file

    other = Normalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    card = TeacherCard(source={'num_classes': 3}, normalization=other)
    save_file(load_file(made.out), tmp_path / 'other.safetensors', card.metadata())
    assert Teacher(CNN, str(tmp_path / 'other.safetensors')).normalization == other


def test_a_run_that_was_interrupted_goes_on(images, made, tmp_path, monkeypatch):
    seen = []
    call = Teacher.__call__
    monkeypatch.setattr(Teacher, '__call__', lambda self, x, **k: seen.append(len(x)) or call(self, x, **k))
    torch.manual_seed(0)
    teacher = {'source': CNN, 'checkpoint': str(made.out), 'input_size': 96}
    arguments = dict(workers=0, device='cpu', batch_size=8)
    first = api.fit_teacher(teacher, api.class_folders(images), tmp_path / 'a.safetensors', **arguments)
    passes = sum(seen)
    again = api.fit_teacher(teacher, api.class_folders(images), tmp_path / 'a.safetensors', **arguments)
    assert passes > 36 and sum(seen) - passes < 12  # the features were there; the shape, and the check
    assert again.card == first.card


@pytest.mark.parametrize('kind', ['mm', 'clip', 'two classifiers'])
def test_any_other_network_gets_a_linear_head(kind, images, tmp_path):
    torch.manual_seed(0)
    source = dict(
        type='vfd.TimmSource', model_name='deit_tiny_distilled_patch16_224', img_size=64, embed_dim=24, depth=1,
        num_heads=2,
    )  # fmt: skip
    if kind == 'mm':
        model = dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            data_preprocessor=dict(mean=[100.0] * 3, std=[50.0] * 3, to_rgb=True),
        )
        source = dict(type='vfd.MMSource', model=model)
    if kind == 'clip':
        (tmp_path / 'vfd-fit-clip.json').write_text(
            '{"embed_dim": 16, "vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "patch_size": 16, '
            '"head_width": 32}, "text_cfg": {"width": 32, "heads": 2, "layers": 1}}'
        )
        open_clip.add_model_config(tmp_path)
        source = dict(type='vfd.OpenCLIPSource', model_name='vfd-fit-clip')
    size = {'input_size': 64} if kind == 'mm' else {}  # the others know it
    done = api.fit_teacher(
        {'source': source, 'checkpoint': 'random', **size},
        api.class_folders(images),
        tmp_path / 'head.safetensors',
        workers=0,
        device='cpu',
    )
    assert done.config['source']['type'] == 'vfd.LinearHeadSource' and done.card.accuracy > 0.6
    teacher = MODELS.build({**done.config, 'taps': ['logits', 'pooled']})
    answers = teacher(torch.rand(2, 3, 40, 40))
    head = teacher.network['head']
    torch.testing.assert_close(answers['logits'], head(answers['pooled']))
    assert teacher.num_classes == 3 and teacher.input_size == 64
    assert MODELS.build({**done.config, 'taps': ['pooled']}).num_classes is None


def test_many_images_train_the_head_in_batches(monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    features = (np.eye(8)[labels] * 3 + rng.normal(size=(600, 8))).astype(np.float32)
    monkeypatch.setattr(api, 'PROBE_IMAGES', 100)
    weight, bias = api.fit_head(features, labels, 3, seed=0)
    assert weight.shape == (3, 8) and bias.shape == (3,)
    assert ((features @ weight.T + bias).argmax(1) == labels).mean() > 0.85
    again = api.fit_head(features, labels, 3, seed=0)
    assert np.array_equal(weight, again[0]) and np.array_equal(bias, again[1])


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return parser.parse_args(arguments)


def test_the_command(images, tmp_path, capsys):
    torch.manual_seed(0)
    shutil.copytree(images, tmp_path / 'val')
    out = tmp_path / 'cli.safetensors'
    command.run(
        parsed(
            *(
                '--images',
                str(images),
                '--val',
                str(tmp_path / 'val'),
                '--model',
                'timm:test_resnet',
                '--out',
                str(out),
            ),
            *('--checkpoint', 'random', '--input-size', '64', '--image-size', '24', '--workers', '0'),
        )
    )
    text = capsys.readouterr().out
    assert 'accuracy' in text and '35 held-out' in text and 'test_resnet' in text
    assert Teacher(CNN, str(out)).input_size == 64


def test_images_and_network_of_a_config(images, tmp_path):
    torch.manual_seed(0)
    config = tmp_path / 'mine.py'
    config.write_text(
        f"""
model = dict(type='vfd.SSLDDistiller',
    student=dict(type='mmpretrain.TimmClassifier', model_name='test_resnet', num_classes=3),
    teacher=dict(type='vfd.Teacher', source=dict(type='vfd.TimmSource', model_name='test_resnet', num_classes=3),
                 checkpoint='random', input_size=48))
train_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mmpretrain.CustomDataset', data_root={str(images)!r}, pipeline=[dict(type='vfd.LoadImage')]))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
default_scope = 'mmpretrain'
"""
    )
    out = tmp_path / 'config.safetensors'
    command.run(parsed('--config', str(config), '--out', str(out), '--workers', '0'))
    teacher = Teacher(CNN, str(out))
    assert teacher.input_size == 48 and teacher.classes == ('blue', 'green', 'red')


@pytest.mark.parametrize(
    ('arguments', 'facts'),
    [
        (['--out', 'a.safetensors', '--model', 'test_resnet'], ['--images', '--config']),
        (['--out', 'a.pth', '--model', 'test_resnet', '--images', 'IMAGES'], ['a.pth', '.safetensors']),
        (['--out', 'a.safetensors', '--images', 'IMAGES'], ['--model', 'model.teacher']),
        (
            ['--out', 'a.safetensors', '--images', 'IMAGES', '--model', 'keras:vgg'],
            ['keras:vgg', 'timm, open_clip'],
        ),
        (
            ['--out', 'a.safetensors', '--images', 'IMAGES/red', '--model', 'test_resnet'],
            ['lies in no class'],
        ),
    ],
)
def test_mistakes(arguments, facts, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [argument.replace('IMAGES', str(images)) for argument in arguments]
    with pytest.raises(UserError) as error:
        command.run(parsed(*given))
    assert all(fact in str(error.value) for fact in facts), error.value


def test_an_image_is_held_out_or_not(images, tmp_path):
    some = api.class_folders(images)
    teacher = {'source': CNN, 'checkpoint': 'random', 'input_size': 64}
    with pytest.raises(UserError, match=r'36 images.*00\.png'):
        api.fit_teacher(teacher, some, tmp_path / 'a.safetensors', val=some, device='cpu')


def test_too_few_images(images):
    all_of_them = api.class_folders(images)
    with pytest.raises(UserError, match='held-out ones with --val'):
        api.split(all_of_them.some([0, 1, 12, 13, 24]), 0.2, 0)


def test_a_card_that_cannot_be_read():
    assert TeacherCard.read({}, 'x') == TeacherCard()
    for entry in ('{', {'bn': 'off'}, {'size': 3}, {'normalization': {'mean': [1]}}, [1]):
        with pytest.raises(UserError, match=r'x\.safetensors.*vfd_teacher'):
            TeacherCard.read({'vfd_teacher': entry}, 'x.safetensors')
