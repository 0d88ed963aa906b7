"""Every target from every kind of student, reloaded and compared on real images."""

import importlib
import json
import types

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from PIL import Image
from safetensors import safe_open

from vfd.apis.exporting import export
from vfd.checkpoints import file_sha256, load_state
from vfd.cli.main import main
from vfd.errors import MissingFileError, MissingPackageError, UserError
from vfd.export import TARGETS, load_target
from vfd.export.images import real_images
from vfd.export.timm_folder import crop
from vfd.registry import MODELS

PREPROCESSOR = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375], 'to_rgb': True}
TEACHER = {'source': 'timm test_resnet', 'weights_sha256': 'ab' * 32}
VIT = {'img_size': 32, 'patch_size': 8, 'embed_dim': 32, 'depth': 2, 'num_heads': 2}
STUDENTS = {
    'timm_cnn': {'type': 'TimmClassifier', 'model_name': 'test_efficientnet', 'num_classes': 5},
    'timm_vit': {'type': 'TimmClassifier', 'model_name': 'test_vit', 'num_classes': 5, **VIT},
    'timm_backbone': {
        'type': 'ImageClassifier',
        'backbone': {'type': 'TIMMBackbone', 'model_name': 'test_resnet', 'init_cfg': None},
        'neck': {'type': 'GlobalAveragePooling'},
        'head': {'type': 'LinearClsHead', 'num_classes': 5, 'in_channels': 96},
    },
    'resnet': {
        'type': 'mmpretrain.ImageClassifier',
        'backbone': {'type': 'ResNet', 'depth': 18, 'stem_channels': 8, 'base_channels': 8},
        'neck': {'type': 'GlobalAveragePooling'},
        'head': {'type': 'LinearClsHead', 'num_classes': 5, 'in_channels': 64},
    },
}
UNSUPPORTED = {('resnet', 'timm'), ('resnet', 'hf'), ('timm_cnn', 'mmdet'), ('timm_cnn', 'mmseg')}
# What other students show too: graphs, and plain backbones.
TWINS = {(name, target) for name in ('timm_backbone', 'timm_vit') for target in ('onnx', 'mmdet')}
TWINS |= {('timm_backbone', 'mmseg'), ('resnet', 'onnx')}
SUPPORTED = sorted({(name, target) for name in STUDENTS for target in TARGETS} - UNSUPPORTED - TWINS)


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Tiny networks gain nothing from more, and lose much where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images, and for each student a distiller's config and a checkpoint."""
    folder = tmp_path_factory.mktemp('students')
    (folder / 'images').mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        pixels = rng.integers(0, 256, (40 + i, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / 'images' / f'{i}.png')
    for name, student in STUDENTS.items():
        write_student(folder, name, student)
    return folder


def write_student(folder, name, student, preprocessor=PREPROCESSOR, distiller=True):
    config = {'default_scope': 'mmpretrain', 'data_preprocessor': preprocessor}
    pipeline = [
        {'type': 'LoadImageFromFile'},
        {'type': 'Resize', 'scale': (32, 32)},
        {'type': 'PackInputs'},
    ]
    dataset = {'type': 'CustomDataset', 'data_root': str(folder / 'images'), 'with_label': False}
    config['test_dataloader'] = {
        'batch_size': 2,
        'num_workers': 0,
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        'dataset': dataset | {'pipeline': pipeline},
    }
    config['model'] = student
    if distiller:
        teacher = {'type': 'vfd.Teacher', 'checkpoint': 'no/such/file.pth'}  # an export never needs it
        config['model'] = {'type': 'vfd.SSLDDistiller', 'student': student, 'teacher': teacher}
    Config(config).dump(folder / f'{name}.py')
    torch.manual_seed(0)
    model = randomised(
        MODELS.build(Config(student | {'type': 'mmpretrain.' + student['type'].split('.')[-1]}))
    )
    prefix = 'student.' if distiller else ''
    state = {prefix + key: value for key, value in model.state_dict().items()}
    meta = {'dataset_meta': {'classes': ('a', 'b', 'c', 'd', 'e')}, 'vfd': {'teacher': TEACHER}}
    torch.save({'state_dict': state, 'meta': meta}, folder / f'{name}.pth')


def randomised(model):
    """Fresh classifiers answer almost zero; give the outputs a size that a wrong export would miss."""
    for key, value in model.state_dict().items():
        if value.dtype == torch.float32:
            torch.nn.init.normal_(value, std=0.2) if 'running_var' not in key else value.fill_(1.5)
    return model


@pytest.mark.parametrize(('name', 'target'), SUPPORTED)
def test_target(folder, tmp_path, name, target):
    certificate = export(
        Config.fromfile(folder / f'{name}.py'), folder / f'{name}.pth', target, tmp_path / 'out'
    )
    assert certificate.max_error <= certificate.limit and certificate.batch_sizes == [3, 1]
    written = json.loads((tmp_path / 'out' / target / 'certificate.json').read_text())
    assert written['images'] == ['0.png', '1.png', '2.png']
    assert written['teacher'] == TEACHER and written['classes'] == list('abcde')
    assert written['checkpoint']['sha256'] == file_sha256(folder / f'{name}.pth')
    assert written['preprocessing']['size'] == [3, 32, 32]
    assert written['preprocessing']['mean'] == PREPROCESSOR['mean']
    assert written['preprocessing']['channel_order'] == 'RGB'
    assert written['config']['name'] == f'{name}.py' and written['versions']['torch'] == torch.__version__
    for file, sha256 in written['files'].items():
        assert file_sha256(certificate.artefact.parent / file) == sha256
    assert written['files'] and certificate.artefact.name in written['files']
    inside = metadata_inside(target, certificate.artefact)
    assert inside == written | {'files': {}}
    assert not list((tmp_path / 'out').glob('.*'))
    compile(certificate.snippet, 'snippet', 'exec')


def metadata_inside(target, artefact):
    if target in ('timm', 'hf', 'safetensors'):
        with safe_open(artefact, 'pt') as handle:
            return json.loads(handle.metadata()['vfd'])
    if target in ('mmpretrain', 'mmdet', 'mmseg'):
        return torch.load(artefact, weights_only=True)['meta']['vfd']
    if target == 'torchscript':
        extra = {'vfd.json': ''}
        torch.jit.load(artefact, _extra_files=extra)
        return json.loads(extra['vfd.json'])
    onnx = pytest.importorskip('onnx')
    return json.loads({p.key: p.value for p in onnx.load(artefact).metadata_props}['vfd'])


def test_snippets_give_the_same_answer(folder, tmp_path):
    """The printed lines alone load each form; all forms agree."""
    images = torch.rand(2, 3, 32, 32)
    answers = {}
    for target in ('timm', 'hf', 'mmpretrain', 'torchscript'):
        certificate = export(folder / 'timm_vit.py', folder / 'timm_vit.pth', target, tmp_path)
        names: dict = {}
        exec(certificate.snippet, names)
        with torch.no_grad():
            answers[target] = names['model'](images)
    for answer in answers.values():
        torch.testing.assert_close(answer, answers['timm'], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('target', ['timm', 'hf'])
def test_timm_folders_say_how_to_prepare_images(folder, tmp_path, target):
    certificate = export(folder / 'timm_cnn.py', folder / 'timm_cnn.pth', target, tmp_path)
    config = json.loads((certificate.artefact.parent / 'config.json').read_text())
    assert config['architecture'] == 'test_efficientnet' and config['num_classes'] == 5
    assert config['label_names'] == list('abcde') and 'num_classes' not in config['model_args']
    model = timm.create_model(f'local-dir:{certificate.artefact.parent}', pretrained=True)
    known = timm.data.resolve_data_config(model=model, use_test_size=True)
    assert known['mean'] == pytest.approx([0.485, 0.456, 0.406]) and known['input_size'] == (3, 32, 32)
    assert known['crop_pct'] == 1.0 and known['crop_mode'] == 'squash'
    assert model.num_classes == 5 and list(model.pretrained_cfg['label_names']) == list('abcde')


@pytest.mark.parametrize(
    ('pipeline', 'expected'),
    [
        (
            [
                {'type': 'mmpretrain.ResizeEdge', 'scale': 256, 'edge': 'short', 'interpolation': 'bicubic'},
                {'type': 'CenterCrop', 'crop_size': 224},
            ],
            {'crop_pct': 0.875, 'crop_mode': 'center', 'interpolation': 'bicubic'},
        ),
        (
            [{'type': 'Resize', 'scale': (32, 32)}],
            {'crop_pct': 1.0, 'crop_mode': 'squash', 'interpolation': 'bilinear'},
        ),
        ([{'type': 'PackInputs'}], {'crop_pct': 1.0, 'crop_mode': 'center'}),
    ],
)
def test_crops_in_timms_words(pipeline, expected):
    assert crop(pipeline) == expected


def test_mmpretrain_inferencer_reads_the_export(folder, tmp_path):
    import mmpretrain

    certificate = export(folder / 'resnet.py', folder / 'resnet.pth', 'mmpretrain', tmp_path)
    config = certificate.artefact.with_name('student.py')
    inferencer = mmpretrain.ImageClassificationInferencer(
        str(config), str(certificate.artefact), device='cpu'
    )
    result = inferencer(str(folder / 'images' / '0.png'), batch_size=1)[0]
    assert result['pred_class'] in list('abcde')


def test_supervised_twin_without_a_distiller(folder, tmp_path):
    write_student(folder, 'twin', STUDENTS['timm_cnn'], distiller=False)
    certificate = export(folder / 'twin.py', folder / 'twin.pth', 'timm', tmp_path)
    assert certificate.max_error == 0


def test_named_images_and_default_folder(folder, tmp_path):
    checkpoint = tmp_path / 'best.pth'
    checkpoint.write_bytes((folder / 'timm_cnn.pth').read_bytes())
    certificate = export(folder / 'timm_cnn.py', checkpoint, 'timm', images=folder / 'images' / '1.png')
    assert certificate.images == ['1.png'] and certificate.batch_sizes == [1, 2]
    assert certificate.artefact == tmp_path / 'export' / 'timm' / 'model.safetensors'
    again = export(
        folder / 'timm_cnn.py', checkpoint, 'timm', images=[folder / 'images']
    )  # replaces the first
    assert len(again.images) == 3
    assert [p.name for p in (tmp_path / 'export').iterdir()] == ['timm']


def test_exported_weights_are_read_back_as_vfds(folder, tmp_path):
    certificate = export(folder / 'timm_cnn.py', folder / 'timm_cnn.pth', 'safetensors', tmp_path)
    state = load_state(certificate.artefact)
    assert state.layout == 'vfd' and state.meta['vfd']['teacher'] == TEACHER


@pytest.mark.parametrize('target', ['timm', 'mmpretrain', 'safetensors', 'torchscript'])
def test_corrupted_export_is_noticed_and_nothing_stays(folder, tmp_path, monkeypatch, target):
    form = load_target(target)
    honest = form.reload

    def corrupted(artefact, student):
        model = honest(artefact, student)
        return lambda images: model(images) + 1e-3

    monkeypatch.setattr(form, 'reload', corrupted)
    with pytest.raises(UserError, match='differs from the live student'):
        export(folder / 'timm_cnn.py', folder / 'timm_cnn.pth', target, tmp_path / 'new' / 'out')
    assert not (tmp_path / 'new').exists()


def test_tampered_weights_are_noticed(folder, tmp_path, monkeypatch):
    form = load_target('safetensors')
    honest = form.write

    def tampered(student, place, images):
        path = honest(student, place, images)
        data = bytearray(path.read_bytes())
        start = len(data) // 2
        data[start : start + 2000] = b'\0' * 2000
        path.write_bytes(data)
        return path

    monkeypatch.setattr(form, 'write', tampered)
    with pytest.raises(UserError, match='differs'):
        export(folder / 'timm_cnn.py', folder / 'timm_cnn.pth', 'safetensors', tmp_path)
    assert not list(tmp_path.iterdir())


def test_damage_by_the_annotation_is_noticed(folder, tmp_path, monkeypatch):
    form = load_target('torchscript')
    monkeypatch.setattr(form, 'annotate', lambda artefact, text: artefact.write_bytes(b'PK\3\4 broken'))
    with pytest.raises(RuntimeError):
        export(folder / 'timm_cnn.py', folder / 'timm_cnn.pth', 'torchscript', tmp_path)
    assert not list(tmp_path.iterdir())


def test_failed_export_keeps_the_earlier_one(folder, tmp_path, monkeypatch):
    export(folder / 'timm_cnn.py', folder / 'timm_cnn.pth', 'timm', tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / 'timm').iterdir()}
    monkeypatch.setattr(
        load_target('timm'), 'reload', lambda artefact, student: lambda images: images.sum() * 0
    )
    with pytest.raises(UserError):
        export(folder / 'timm_cnn.py', folder / 'timm_cnn.pth', 'timm', tmp_path)
    assert {p.name: p.read_bytes() for p in (tmp_path / 'timm').iterdir()} == before


def test_foreign_folder_is_not_overwritten(folder, tmp_path):
    (tmp_path / 'timm').mkdir()
    (tmp_path / 'timm' / 'mine.txt').write_text('keep')
    with pytest.raises(UserError, match='is no earlier export'):
        export(folder / 'timm_cnn.py', folder / 'timm_cnn.pth', 'timm', tmp_path)
    assert (tmp_path / 'timm' / 'mine.txt').read_text() == 'keep'


def test_partial_checkpoint_is_refused(folder, tmp_path):
    content = torch.load(folder / 'timm_cnn.pth', weights_only=True)
    del content['state_dict']['student.conv_stem.weight']
    torch.save(content, tmp_path / 'part.pth')
    with pytest.raises(UserError, match=r'part\.pth.*conv_stem\.weight'):
        export(folder / 'timm_cnn.py', tmp_path / 'part.pth', 'timm', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_checkpoint_that_is_not_finite_is_refused(folder, tmp_path):
    content = torch.load(folder / 'timm_cnn.pth', weights_only=True)
    content['state_dict']['student.conv_stem.weight'][:] = float('nan')
    torch.save(content, tmp_path / 'nan.pth')
    with pytest.raises(UserError, match='not finite'):
        export(folder / 'timm_cnn.py', tmp_path / 'nan.pth', 'safetensors', tmp_path / 'out')


@pytest.mark.parametrize('target', ['timm', 'hf'])
def test_what_timm_cannot_build(folder, tmp_path, target):
    with pytest.raises(UserError, match=r'ImageClassifier with ResNet.*onnx'):
        export(folder / 'resnet.py', folder / 'resnet.pth', target, tmp_path)


def test_timm_never_feeds_bgr(folder, tmp_path):
    write_student(folder, 'bgr', STUDENTS['timm_cnn'], preprocessor=PREPROCESSOR | {'to_rgb': False})
    with pytest.raises(UserError, match='BGR'):
        export(folder / 'bgr.py', folder / 'bgr.pth', 'timm', tmp_path)
    certificate = export(folder / 'bgr.py', folder / 'bgr.pth', 'safetensors', tmp_path)
    assert certificate.preprocessing['channel_order'] == 'BGR'


def test_wrong_names(folder, tmp_path):
    with pytest.raises(UserError, match='did you mean "torchscript"'):
        export(folder / 'timm_cnn.py', folder / 'timm_cnn.pth', 'torchscirpt', tmp_path)
    with pytest.raises(MissingFileError, match=r'none\.pth'):
        export(folder / 'timm_cnn.py', folder / 'none.pth', 'timm', tmp_path)
    with pytest.raises(MissingFileError, match='nowhere'):
        export(folder / 'timm_cnn.py', folder / 'timm_cnn.pth', 'timm', tmp_path, images=folder / 'nowhere')
    (tmp_path / 'text.png').write_text('no image')
    with pytest.raises(UserError, match=r'text\.png cannot be read'):
        export(
            folder / 'timm_cnn.py', folder / 'timm_cnn.pth', 'timm', tmp_path, images=tmp_path / 'text.png'
        )


def test_missing_onnxruntime_is_named(folder, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name, *a: None if name == 'onnxruntime' else real(name, *a)
    )
    with pytest.raises(MissingPackageError, match=r'onnxruntime.*vfdistill\[export\]'):
        export(folder / 'timm_cnn.py', folder / 'timm_cnn.pth', 'onnx', tmp_path)


def test_command_line(folder, tmp_path, capsys):
    arguments = [
        'export',
        str(folder / 'timm_cnn.py'),
        str(folder / 'timm_cnn.pth'),
        '--out',
        str(tmp_path),
        '--to',
    ]
    assert main([*arguments, 'timm']) == 0
    shown = capsys.readouterr().out
    assert 'largest error' in shown and 'timm.create_model(' in shown
    assert main([*arguments, 'tim']) == 2
    assert capsys.readouterr().err.startswith('error: no export target "tim"')


@pytest.mark.parametrize('kind', ['ClsDataPreprocessor', 'SelfSupDataPreprocessor'])
def test_images_are_normalised_alike_under_every_preprocessor(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    mean, std = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    student = types.SimpleNamespace(
        pipeline=[{'type': 'LoadImageFromFile'}, {'type': 'PackInputs'}],
        preprocessor=MODELS.build(dict(type=f'mmpretrain.{kind}', mean=mean, std=std, to_rgb=True)),
        image_size=None,
        is_detector=False,
        scope='mmpretrain',
    )
    batch, names = real_images(Config(), student, tmp_path)
    assert names == ['a.png']
    np.testing.assert_allclose(batch[0].permute(1, 2, 0).numpy(), (pixels - np.array(mean)) / std, rtol=1e-5)
