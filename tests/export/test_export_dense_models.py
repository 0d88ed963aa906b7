"""Detectors and segmentors leave whole: to mmdet and mmseg, where vfd's methods are not needed, and to ONNX."""

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from PIL import Image

from vfd.apis.check import TOP_LEVEL_KEYS
from vfd.apis.config import load_config
from vfd.apis.detection_inference import DetectionInferencer
from vfd.apis.exporting import export
from vfd.apis.segmentation_inference import SegmentationInferencer
from vfd.apis.training import test as evaluate
from vfd.errors import UserError
from vfd.export.detections import detect
from vfd.export.whole_model import REPAIRS, repairs_needed
from vfd.registry import MODELS

ROOT = Path(__file__).parents[2]
CONFIGS = {
    'detector': ROOT / 'configs/g2sd/g2sd-det_tiny_1xb2-8i_coco-small.py',
    'segmentor': ROOT / 'configs/g2sd/g2sd-seg_tiny_1xb4-20i_folder-64x64.py',
}
PACKAGES = {'detector': 'mmdet', 'segmentor': 'mmseg'}
# What a user of mmdet and mmseg runs, and what of vfd that needs.
SCRIPT = """
import json, sys
{first}
from mmengine.config import Config
from mmengine.runner import Runner
from mmdet.apis import inference_detector, init_detector
from mmseg.apis import inference_model, init_model

folder, image, seen = sys.argv[1], sys.argv[2:], {{}}
for package, init, use, image in (('mmdet', init_detector, inference_detector, image[0]),
                                  ('mmseg', init_model, inference_model, image[1])):
    files = [f'{{folder}}/{{package}}/student.py', f'{{folder}}/{{package}}/student.pth']
    model = init(*files, device='cpu')
    result = use(model, image)
    found = result.pred_instances.bboxes if package == 'mmdet' else result.pred_sem_seg.data[0]
    config = Config.fromfile(files[0])
    config.load_from, config.work_dir, config.visualizer.vis_backends = files[1], f'{{folder}}/work', []
    seen[package] = dict(found=found.tolist(), classes=list(model.dataset_meta['classes']),
                         metrics=Runner.from_cfg(config).test())
seen['rooms'] = sorted({{'.'.join(name.split('.')[:2]) for name in sys.modules if name.startswith('vfd.')}})
print('RESULT' + json.dumps(seen, default=float))
"""


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def square(rng):
    """An image with one bright square, and where that is."""
    pixels = rng.integers(0, 80, (96, 128, 3), dtype=np.uint8)
    x, y, side = (int(value) for value in rng.integers((5, 5, 30), (60, 40, 50)))
    pixels[y : y + side, x : x + side] = (220, 60, 90)
    return pixels, (x, y, side)


def confident(model):
    """Heads of fresh networks answer alike everywhere: give the answers a spread that a wrong export would miss."""
    for name, value in model.state_dict().items():
        if any(
            part in name
            for part in ('fc_cls', 'rpn_cls', 'retina_cls', 'conv_seg', 'conv_logits', 'rel_pos_')
        ):
            torch.nn.init.normal_(value, std=0.5)
        elif any(part in name for part in ('fc_reg', 'rpn_reg', 'retina_reg')):
            torch.nn.init.normal_(value, std=0.05)
    return model


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Small data in both layouts, and for each student the files of a training."""
    root = tmp_path_factory.mktemp('dense')
    rng = np.random.default_rng(0)
    content = {'images': [], 'annotations': []}
    content['categories'] = [{'id': 1, 'name': 'disc'}, {'id': 2, 'name': 'box'}]
    for part in ('val2017', 'annotations', 'val/images', 'val/labels'):
        (root / part).mkdir(parents=True)
    for k in range(3):
        pixels, (x, y, side) = square(rng)
        Image.fromarray(pixels).save(root / f'val2017/{k}.png')
        Image.fromarray(pixels).save(root / f'val/images/{k}.png')
        label = np.zeros(pixels.shape[:2], dtype=np.uint8)
        label[y : y + side, x : x + side] = 2
        Image.fromarray(label).save(root / f'val/labels/{k}.png')
        content['images'].append({'id': k, 'file_name': f'{k}.png', 'height': 96, 'width': 128})
        outline = [x, y, x + side, y, x + side, y + side, x, y + side]
        box = {'bbox': [x, y, side, side], 'area': side * side, 'segmentation': [outline], 'iscrowd': 0}
        content['annotations'].append({'id': k + 1, 'image_id': k, 'category_id': 2, **box})
    (root / 'annotations/instances_val2017.json').write_text(json.dumps(content))
    write(root, 'detector', CONFIGS['detector'])
    write(root, 'segmentor', CONFIGS['segmentor'])
    return root


def write(root, name, path, change=None):
    """The config of a training on ``root``, and the checkpoint that it leaves, with fresh weights."""
    detector = 'det' in path.name
    data_root = f'{root}/' if detector else str(root)
    options = {f'{loader}_dataloader.dataset.data_root': data_root for loader in ('train', 'val', 'test')}
    options |= {'visualizer.vis_backends': []}
    if detector:
        options |= {'test_evaluator.ann_file': f'{root}/annotations/instances_val2017.json'}
    config = load_config(path, options)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet' if detector else 'mmseg'):
        if change is None:  # what the distiller writes, with the method's own tensors
            state = confident(MODELS.build(copy.deepcopy(config.model))).state_dict()
        else:
            change(config.model.student)
            student = MODELS.build(ConfigDict(copy.deepcopy(config.model.student)))
            state = {f'student.{key}': value for key, value in confident(student).state_dict().items()}
    classes = ('disc', 'box') if detector else ('background', 'disc', 'box')
    torch.save({'state_dict': state, 'meta': {'dataset_meta': {'classes': classes}}}, root / f'{name}.pth')
    # variables that only the base configs read are not written
    Config({key: value for key, value in config.items() if key in TOP_LEVEL_KEYS}).dump(root / f'{name}.py')


@pytest.fixture(scope='module')
def exported(folder):
    """Both students in their package."""
    files = {name: (folder / f'{name}.py', folder / f'{name}.pth') for name in PACKAGES}
    return {
        name: export(*files[name], package, folder / 'out', folder / 'val2017')
        for name, package in PACKAGES.items()
    }


# ------------------------------------------------------------------------------------------------ mmdet and mmseg


@pytest.mark.slow  # two interpreters that import three packages
def test_packages_load_and_test_the_exports_without_methods(folder, exported):
    script = folder / 'script.py'
    script.write_text(SCRIPT.format(first=f'import {REPAIRS}' if repairs_needed() else ''))
    images = [str(folder / 'val2017/1.png')] * 2
    done = subprocess.run(
        [sys.executable, str(script), str(folder / 'out'), *images],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('RESULT')]
    assert lines, done.stderr[-3000:]
    seen = json.loads(lines[-1].removeprefix('RESULT'))
    assert 'vfd.backbones' in seen['rooms']
    assert not {'vfd.methods', 'vfd.teachers', 'vfd.engine', 'vfd.apis', 'vfd.export'} & set(seen['rooms'])
    for name, package in PACKAGES.items():
        own = evaluate(
            load_config(folder / f'{name}.py'), folder / f'{name}.pth', folder / 'test', options={}
        )
        assert own and seen[package]['metrics'] == pytest.approx(own, abs=0, nan_ok=True)
    assert seen['mmdet']['classes'] == ['disc', 'box']
    live = DetectionInferencer(folder / 'detector.py', folder / 'detector.pth')(images[0], threshold=0)
    assert len(live.boxes) > 5 and seen['mmdet']['found'] == live.boxes.tolist()
    labels = SegmentationInferencer(folder / 'segmentor.py', folder / 'segmentor.pth')(images[1]).labels
    assert len(np.unique(labels)) > 1 and seen['mmseg']['found'] == labels.tolist()


def test_certificates_compare_what_is_found(exported):
    detector, segmentor = exported['detector'], exported['segmentor']
    assert detector.part == segmentor.part == 'model' and 'adapter' in detector.dropped
    assert list(detector.outputs) == ['counts', 'boxes', 'scores', 'labels', 'masks']
    assert all(errors['max_error'] == 0 for errors in detector.outputs.values())
    assert segmentor.max_error == 0 and segmentor.classes == ['background', 'disc', 'box']


@pytest.mark.parametrize('name', PACKAGES)
def test_written_configs_are_the_packages_own(exported, name):
    package = PACKAGES[name]
    config = Config.fromfile(exported[name].artefact.with_name('student.py'), import_custom_modules=False)
    assert config.custom_imports.imports == ['vfd.backbones'] and config.default_scope == package
    assert config.model.type in ('MaskRCNN', 'EncoderDecoder') and 'teacher' not in config.model
    assert config.test_pipeline == config.test_dataloader.dataset.pipeline
    assert config.test_pipeline[0].type == 'LoadImageFromFile'
    stored = torch.load(exported[name].artefact, weights_only=True)
    assert not [key for key in stored['state_dict'] if key.startswith(('student.', 'adapter', 'teacher'))]
    assert list(stored['meta']['dataset_meta']['classes']) == exported[name].classes


def test_a_network_of_the_package_needs_nothing_of_vfd(folder, tmp_path):
    write(folder, 'plain', CONFIGS['detector'], as_faster_rcnn)
    certificate = export(
        folder / 'plain.py', folder / 'plain.pth', 'mmdet', tmp_path, folder / 'val2017/0.png'
    )
    text = certificate.artefact.with_name('student.py').read_text()
    imports = Config.fromfile(certificate.artefact.with_name('student.py'), import_custom_modules=False).get(
        'custom_imports'
    )
    assert imports.imports == [REPAIRS] if repairs_needed() else imports is None
    assert text.count('vfd') == (1 if repairs_needed() else 0)


@pytest.mark.parametrize(('name', 'package'), [('detector', 'mmseg'), ('segmentor', 'mmdet')])
def test_the_other_package_takes_the_backbone(folder, tmp_path, name, package):
    with pytest.raises(UserError, match='no model of'):
        export(folder / f'{name}.py', folder / f'{name}.pth', package, tmp_path, part='model')


# -------------------------------------------------------------------------------------------------------------- ONNX


def resnet(student):
    student.backbone = dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        norm_cfg=dict(type='BN'),
        init_cfg=None,
        out_indices=(0, 1, 2, 3),
    )
    student.neck = dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)


def as_faster_rcnn(student):
    resnet(student)
    student.type = 'mmdet.FasterRCNN'
    student.roi_head.pop('mask_head')
    student.roi_head.pop('mask_roi_extractor')
    student.roi_head.bbox_head.update(type='Shared2FCBBoxHead', norm_cfg=None)


def as_mask_rcnn(student):
    resnet(student)


def as_retinanet(student):
    resnet(student)
    student.neck.update(start_level=1, add_extra_convs='on_input')
    student.type = 'mmdet.RetinaNet'
    anchors = dict(
        type='AnchorGenerator',
        octave_base_scale=2,
        scales_per_octave=2,
        ratios=[1.0],
        strides=[8, 16, 32, 64, 128],
    )
    student.bbox_head = dict(
        type='RetinaHead',
        num_classes=2,
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        anchor_generator=anchors,
    )
    for part in ('rpn_head', 'roi_head', 'train_cfg', 'test_cfg'):
        student.pop(part)
    student.test_cfg = dict(
        nms_pre=60, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=40
    )


@pytest.mark.parametrize(
    ('name', 'change'),
    [('retina', as_retinanet), ('faster', as_faster_rcnn), ('mask', as_mask_rcnn)],
)
def test_onnx_finds_the_same_boxes_at_two_image_sizes(folder, tmp_path, name, change):
    onnxruntime = pytest.importorskip('onnxruntime')
    write(folder, name, CONFIGS['detector'], change)
    certificate = export(folder / f'{name}.py', folder / f'{name}.pth', 'onnx', tmp_path, folder / 'val2017')
    assert certificate.preprocessing['any_size'] and certificate.classes == ['disc', 'box']
    assert (
        certificate.outputs['boxes']['max_error'] < 1e-2 and certificate.outputs['labels']['max_error'] == 0
    )

    session = onnxruntime.InferenceSession(certificate.artefact)
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes['classes']) == ['disc', 'box'] and json.loads(notes['std'])[0] == 58.395
    config = load_config(folder / f'{name}.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        live = MODELS.build(ConfigDict(copy.deepcopy(config.model.student))).eval()
    stored = torch.load(folder / f'{name}.pth', weights_only=True)['state_dict']
    live.load_state_dict({key.removeprefix('student.'): value for key, value in stored.items()})
    pixels = torch.from_numpy(np.asarray(Image.open(folder / 'val2017/2.png'))).permute(2, 0, 1)[None].float()
    for height, width in ((96, 128), (160, 96)):
        images = torch.nn.functional.interpolate((pixels - 115) / 58, (height, width), mode='bilinear')
        _, *expected = detect(live, images)
        found = session.run(None, {'images': images.numpy()})
        assert len(found) == len(expected) == (4 if name == 'mask' else 3)
        assert len(expected[0]) > 10 and [len(values) for values in found] == [len(v) for v in expected]
        np.testing.assert_allclose(found[0], expected[0], atol=1e-2)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-4)
        np.testing.assert_array_equal(found[2], expected[2])
        if name == 'mask':
            assert (found[3] != expected[3].numpy()).mean() < 1e-4


def test_onnx_of_the_distilled_detector(folder, tmp_path):
    pytest.importorskip('onnxruntime')
    image = tmp_path / 'image.png'  # of a size that is neither resized nor padded: boxes end at its border
    Image.open(folder / 'val2017/0.png').resize((128, 128)).save(image)
    files = folder / 'detector.py', folder / 'detector.pth'
    certificate = export(*files, 'onnx', tmp_path, [image])
    assert (
        certificate.outputs['boxes']['max_error'] < 1e-2 and certificate.outputs['masks']['max_error'] < 1e-3
    )
    live = DetectionInferencer(*files)(image, threshold=0)
    found = DetectionInferencer(export=tmp_path / 'onnx')(image, threshold=0)
    np.testing.assert_allclose(found.boxes, live.boxes, atol=1e-2)
    assert (found.labels == live.labels).all() and found.names[0] in ('disc', 'box')


def soft_nms(student):
    as_faster_rcnn(student)
    student.test_cfg.rcnn.nms = dict(type='soft_nms', iou_threshold=0.5)


def test_onnx_refuses_what_it_has_no_graph_for(folder, tmp_path):
    write(folder, 'soft', CONFIGS['detector'], soft_nms)
    arguments = folder / 'soft.py', folder / 'soft.pth', 'onnx', tmp_path, folder / 'val2017'
    with pytest.raises(UserError, match=r'soft_nms.*--to mmdet'):
        export(*arguments, part='model')
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r'trace.*--to onnx'):
        export(folder / 'soft.py', folder / 'soft.pth', 'torchscript', tmp_path, part='model')


# ------------------------------------------------------------------------------------------------------------- demos


@pytest.mark.parametrize('source', ['checkpoint', 'export'])
@pytest.mark.parametrize('name', PACKAGES)
def test_demos_draw_a_picture(folder, exported, tmp_path, monkeypatch, capsys, name, source):
    demo = {'detector': 'detection_demo', 'segmentor': 'segmentation_demo'}[name]
    spec = importlib.util.spec_from_file_location(demo, ROOT / f'demo/{demo}.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    model = ['--export', str(folder / 'out' / PACKAGES[name])]
    if source == 'checkpoint':
        model = ['--config', str(folder / f'{name}.py'), '--checkpoint', str(folder / f'{name}.pth')]
    options = ['--threshold', '0.1'] if name == 'detector' else []
    picture = tmp_path / 'picture.png'
    image = folder / 'val2017/0.png'
    monkeypatch.setattr(sys, 'argv', [demo, str(image), *model, *options, '--out', str(picture)])
    assert tool.main() == 0
    shown = capsys.readouterr().out
    assert ('box' in shown or 'disc' in shown) and 'picture.png' in shown
    drawn, plain = (np.asarray(Image.open(path).convert('RGB'), dtype=int) for path in (picture, image))
    assert drawn.shape == plain.shape and (np.abs(drawn - plain).max(-1) > 40).mean() > 0.02


def test_demos_refuse_what_they_cannot_read(folder, exported, tmp_path):
    with pytest.raises(UserError, match='a config and a checkpoint'):
        DetectionInferencer(config=folder / 'detector.py')
    with pytest.raises(UserError, match='no segmentor of mmseg'):
        SegmentationInferencer(folder / 'detector.py', folder / 'detector.pth')
    with pytest.raises(UserError, match=r'export to mmdet.*--to mmseg'):
        SegmentationInferencer(export=folder / 'out/mmdet')
