"""Distilled vision transformers leave a checkpoint as encoders, in every target, and answer as before."""

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from PIL import Image

from vfd.apis.exporting import export
from vfd.backbones import MaskedViT
from vfd.cli.export import arguments
from vfd.cli.export import run as run_export
from vfd.errors import UserError
from vfd.export import TARGETS
from vfd.registry import MODELS

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
PREPROCESSORS = {
    'mmpretrain': {'type': 'mmpretrain.ClsDataPreprocessor', 'mean': MEAN, 'std': STD, 'to_rgb': True},
    'mmdet': {'type': 'mmdet.DetDataPreprocessor', 'mean': MEAN, 'std': STD, 'bgr_to_rgb': True},
    'mmseg': {'type': 'mmseg.SegDataPreProcessor', 'mean': MEAN, 'std': STD, 'bgr_to_rgb': True},
}
VIT = {'img_size': 32, 'patch_size': 8, 'embed_dim': 32, 'depth': 2, 'num_heads': 2}
MAE = {
    'type': 'vfd.MaskedAutoencoder',
    **VIT,
    'decoder_embed_dim': 16,
    'decoder_depth': 1,
    'decoder_num_heads': 2,
}
CLASSIFIER = {'type': 'vfd.ViTClassifier', 'model_name': 'vit_tiny_patch16_224', 'num_classes': 5, **VIT}
STUDENTS = {
    'dmae': MAE,
    'generic': MAE | {'pixel_outputs': 0},
    'mae_hf': MAE | {'norm_eps': 1e-12},
    'classifier': CLASSIFIER | {'global_pool': 'avg', 'checkpoint': 'no/such/file.pth'},
    'token_classifier': CLASSIFIER | {'global_pool': 'token'},
    'dist_token': CLASSIFIER | {'model_name': 'vit_tiny_patch16_224_dist_token'},
    'detector': {
        'type': 'mmdet.RPN',
        'backbone': {
            'type': 'vfd.ViTDet',
            'embed_dim': 16,
            'depth': 5,
            'num_heads': 2,
            'img_size': 64,
            'patch_size': 8,
            'pretrain_img_size': 32,
            'window_size': 3,
            'checkpoint': 'no/such/file.pth',
        },
        'neck': {'type': 'vfd.SimpleFeaturePyramid', 'in_channels': 16, 'out_channels': 8},
        'rpn_head': {'type': 'RPNHead', 'in_channels': 8, 'feat_channels': 8},
        'train_cfg': None,
        'test_cfg': {'rpn': None},
    },
    'segmentor': {
        'type': 'mmseg.EncoderDecoder',
        'backbone': {
            'type': 'vfd.BEiTPyramid',
            'embed_dim': 16,
            'depth': 4,
            'num_heads': 2,
            'img_size': 32,
            'patch_size': 8,
            'out_indices': (0, 1, 2, 3),
            'checkpoint': 'no/such/file.pth',
        },
        'decode_head': {
            'type': 'FCNHead',
            'in_channels': 16,
            'in_index': 3,
            'channels': 16,
            'num_convs': 0,
            'concat_input': False,
            'num_classes': 3,
        },
        'test_cfg': {'mode': 'whole'},
    },
}
# An export reads neither the method nor the teacher.
TEACHER = {'type': 'vfd.Teacher', 'checkpoint': 'no/such/file.pth'}
# What a method saves beside its student, by the student's name.
EXTRAS = {
    'dmae': {'projectors.0.weight': (32, 48)},
    'generic': {'predictor.fc1.weight': (48, 16)},
    'detector': {'adapter.conv.0.weight': (8, 8, 3, 3)},
}
PIPELINES = {
    'mmpretrain': [{'type': 'Resize', 'scale': (32, 32)}, {'type': 'PackInputs'}],
    'mmdet': [
        {'type': 'Resize', 'scale': (80, 60), 'keep_ratio': True},
        {'type': 'LoadAnnotations', 'with_bbox': True},
        {'type': 'PackDetInputs'},
    ],
    'mmseg': [
        {'type': 'Resize', 'scale': (64, 32), 'keep_ratio': True},
        {'type': 'LoadAnnotations'},
        {'type': 'PackSegInputs'},
    ],
}
CASES = [
    *(('dmae', target, None) for target in TARGETS),
    *(('detector', target, 'backbone') for target in ('mmdet', 'safetensors')),
    *(('detector', target, None) for target in TARGETS if target not in ('mmdet', 'safetensors')),
    *(('generic', target, None) for target in ('timm', 'mmpretrain', 'mmseg', 'safetensors')),
    *(('segmentor', target, 'backbone') for target in TARGETS),
    *(('dist_token', target, None) for target in TARGETS if target != 'onnx'),
    *(('dist_token', target, 'backbone') for target in ('timm', 'hf', 'mmpretrain', 'safetensors')),
    *(('classifier', target, None) for target in ('timm', 'mmpretrain', 'mmdet')),
    *(('classifier', target, 'backbone') for target in ('timm', 'mmpretrain', 'torchscript')),
    *(('token_classifier', target, 'backbone') for target in ('hf', 'mmseg')),
    ('mae_hf', 'mmpretrain', None),
    ('segmentor', 'torchscript', 'model'),
]


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images, and for each student a config and the checkpoint that a method writes."""
    folder = tmp_path_factory.mktemp('encoders')
    (folder / 'images').mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        pixels = rng.integers(0, 256, (40 + 3 * i, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / 'images' / f'{i}.png')
    for name, student in STUDENTS.items():
        write_student(folder, name, student)
    return folder


def write_student(folder, name, student, extras=None):
    scope = next((s for s in ('mmdet', 'mmseg') if student['type'].startswith(s)), 'mmpretrain')
    pipeline = [{'type': 'LoadImageFromFile'}, *PIPELINES[scope]]
    config = {
        'default_scope': scope,
        'data_preprocessor': PREPROCESSORS[scope],
        'model': {'type': 'vfd.SSLDDistiller', 'student': student, 'teacher': TEACHER},
        'test_dataloader': {'dataset': {'type': 'CustomDataset', 'data_root': '', 'pipeline': pipeline}},
    }
    Config(config).dump(folder / f'{name}.py')
    torch.manual_seed(0)
    model = build(student, scope)
    state = {f'student.{key}': value for key, value in randomised(model).state_dict().items()}
    state |= {key: torch.ones(shape) for key, shape in EXTRAS.get(name, {}).items()}
    meta = {'vfd': {'teacher': {'source': 'a teacher'}}}
    torch.save({'state_dict': state, 'meta': meta}, folder / f'{name}.pth')


def build(student, scope):
    student = copy.deepcopy(student)
    for part in (student, student.get('backbone', {})):
        part.pop('checkpoint', None)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(ConfigDict(student))


def randomised(model):
    for key, value in model.state_dict().items():
        if value.dtype == torch.float32:
            torch.nn.init.normal_(value, std=0.2) if 'running_var' not in key else value.fill_(1.5)
    return model


def run(folder, name, target, out, part=None):
    images = folder / 'images'
    config = Config.fromfile(folder / f'{name}.py')
    return export(config, folder / f'{name}.pth', target, out, images, part=part)


@pytest.mark.parametrize(('name', 'target', 'part'), CASES)
def test_encoder_target(folder, tmp_path, name, target, part):
    certificate = run(folder, name, target, tmp_path, part)
    assert certificate.max_error <= certificate.limit and certificate.batch_sizes == [3, 1]
    written = json.loads((tmp_path / target / 'certificate.json').read_text())
    heads_leave = name in ('dist_token', 'classifier') and target not in ('mmdet', 'mmseg')
    assert written['part'] == (part or ('model' if heads_leave else 'backbone'))
    assert written['teacher'] == {'source': 'a teacher'}
    assert written['preprocessing']['channel_order'] == 'RGB' and written['preprocessing']['mean'] == MEAN
    compile(certificate.snippet, 'snippet', 'exec')


@pytest.mark.parametrize(
    ('name', 'target', 'size', 'dropped', 'output'),
    [
        ('dmae', 'timm', 32, {'decoder_blocks', 'decoder_pred', 'projectors'}, 'tokens (B, 1+L, D)'),
        ('generic', 'mmpretrain', 32, {'decoder_blocks', 'mask_token', 'predictor'}, 'tokens (B, 1+L, D)'),
        ('generic', 'mmdet', 32, {'decoder_blocks', 'mask_token', 'predictor'}, 'map (B, D, h, w)'),
        ('dist_token', 'mmseg', 32, {'head', 'head_dist'}, 'map (B, D, h, w)'),
        (
            'classifier',
            'mmdet',
            32,
            {'head', 'fc_norm'},
            'map (B, D, h, w) of the patches after the last block',
        ),
        ('detector', 'torchscript', 64, {'neck', 'bbox_head', 'adapter'}, 'feature maps'),
        ('segmentor', 'timm', 32, {'decode_head'}, 'maps (B, D, h, w) after blocks 0, 1, 2, 3, no pyramid'),
    ],
)
def test_certificate_says_what_was_left_out(folder, tmp_path, name, target, size, dropped, output):
    certificate = run(folder, name, target, tmp_path)
    assert dropped <= set(certificate.dropped) and not {'blocks', 'backbone', 'norm'} & set(
        certificate.dropped
    )
    assert certificate.output.startswith(output)
    assert certificate.preprocessing['size'] == [3, size, size]  # images of other sizes were cut and padded
    stored = torch.load(folder / f'{name}.pth', weights_only=True)['state_dict']
    for part, count in certificate.dropped.items():
        names = [key for key in stored if key.removeprefix('student.').split('.')[0] == part]
        assert count == sum(stored[key].numel() for key in names)


def test_snippets_give_the_tokens_that_the_encoder_gives(folder, tmp_path):
    images = torch.rand(2, 3, 32, 32)
    encoder = MaskedViT(**VIT)
    weights = torch.load(folder / 'dmae.pth', weights_only=True)['state_dict']
    own = {key: weights[f'student.{key}'] for key in encoder.state_dict()}
    encoder.load_state_dict(own)
    with torch.no_grad():
        expected = encoder.eval()(images)
    square = expected[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    for target in ('timm', 'hf', 'mmpretrain', 'mmdet', 'mmseg', 'safetensors', 'torchscript'):
        names: dict = {}
        exec(run(folder, 'dmae', target, tmp_path).snippet, names)
        with torch.no_grad():
            answer = names['model'](images)
        answer = answer[0] if isinstance(answer, tuple) else answer
        wanted = square if target in ('mmdet', 'mmseg') else expected
        torch.testing.assert_close(answer, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(('name', 'package'), [('detector', 'mmdet'), ('segmentor', 'mmseg')])
def test_dense_configs_name_what_they_need(folder, tmp_path, name, package):
    config = Config.fromfile(
        run(folder, name, package, tmp_path, 'backbone').artefact.with_name('student.py')
    )
    assert config.custom_imports.imports == ['vfd.backbones']
    assert config.backbone.type.startswith('vfd.') and 'checkpoint' not in config.backbone
    plain = Config.fromfile(run(folder, 'dmae', package, tmp_path).artefact.with_name('student.py'))
    assert plain.custom_imports.imports == ['mmpretrain.models']
    assert plain.backbone.type == 'mmpretrain.VisionTransformer'
    assert plain.data_preprocessor == {'mean': MEAN, 'std': STD, 'bgr_to_rgb': True}


def test_export_holds_no_decoder(folder, tmp_path):
    run(folder, 'dmae', 'torchscript', tmp_path)
    names = dict(torch.jit.load(tmp_path / 'torchscript' / 'student.pt').named_parameters())
    assert names and not any('decoder' in name for name in names)


def test_parts_that_do_not_exist(folder, tmp_path):
    with pytest.raises(UserError, match='masked autoencoder'):
        run(folder, 'dmae', 'timm', tmp_path, 'model')
    with pytest.raises(UserError, match='RPNHead'):
        run(folder, 'detector', 'onnx', tmp_path, 'model')
    with pytest.raises(UserError, match='mmdet takes the backbone'):
        run(folder, 'dist_token', 'mmdet', tmp_path, 'model')
    with pytest.raises(UserError, match='model, backbone'):
        run(folder, 'dmae', 'timm', tmp_path, 'encoder')


def test_other_blocks_than_mmpretrains_are_refused(folder, tmp_path):
    scaled = CLASSIFIER | {'global_pool': 'token', 'init_values': 0.5}
    write_student(folder, 'scaled', scaled)
    with pytest.raises(UserError, match=r'VisionTransformer has no place for layers\.0\.ls1\.gamma'):
        run(folder, 'scaled', 'mmdet', tmp_path)


def test_encoder_that_lost_a_tensor_is_refused(folder, tmp_path):
    content = torch.load(folder / 'generic.pth', weights_only=True)
    del content['state_dict']['student.blocks.1.mlp.fc1.weight']
    torch.save(content, tmp_path / 'part.pth')
    with pytest.raises(UserError, match=r'blocks\.1\.mlp\.fc1\.weight'):
        export(
            Config.fromfile(folder / 'generic.py'),
            tmp_path / 'part.pth',
            'timm',
            tmp_path / 'out',
            folder / 'images',
        )


def test_command_line_takes_a_part(folder, tmp_path, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    arguments(parser)
    files = [str(folder / 'dist_token.py'), str(folder / 'dist_token.pth'), '--out', str(tmp_path)]
    options = ['--to', 'timm', '--part', 'backbone', '--images', str(folder / 'images')]
    run_export(parser.parse_args([*files, *options]))
    shown = capsys.readouterr().out
    assert 'head_dist' in shown and 'local-dir:' in shown
    written = json.loads((tmp_path / 'timm/config.json').read_text())
    assert written['model_args']['reg_tokens'] == 1
