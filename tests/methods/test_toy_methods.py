"""The contracts are wide enough: foreign methods with other inputs train, resume, are cached and exported."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from toy_methods import MEAN, POINTS, SIZE, STD

from vfd.apis.exporting import export
from vfd.apis.training import prepare, run

IMAGES = dict(type='mmengine.ImgDataPreprocessor', mean=MEAN, std=STD, bgr_to_rgb=True)
DEPTH = dict(
    type='vfd.ToyDepth',
    student=dict(type='vfd.ToyDepthStudent'),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.ToyDepthSource'),
        checkpoint='random',
        taps=['depth'],
        input_size=24,
    ),
    data_preprocessor=IMAGES,
)
REGIONS = dict(
    type='vfd.ToyRegions',
    student=dict(type='mmpretrain.TimmClassifier', model_name='test_resnet', num_classes=2),
    teacher=dict(
        type='vfd.Teacher', source=dict(type='vfd.ToyRegionSource'), checkpoint='random', taps=['regions']
    ),
    data_preprocessor=IMAGES,
)
CLOUDS = dict(
    type='vfd.ToyOccupancy',
    student=dict(type='vfd.ToyEncoder'),
    data_preprocessor=dict(type='vfd.ToyPadding'),
)
KINDS = {'depth': DEPTH, 'regions': REGIONS, 'clouds': CLOUDS}


def config(folder: Path, kind: str, steps: int = 6, **options) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f'{kind}{steps}.py'
    content = dict(
        custom_imports=dict(imports=['toy_methods']),
        default_scope='mmpretrain' if kind == 'regions' else 'mmengine',
        model=copy.deepcopy(KINDS[kind]),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            dataset=dict(type='vfd.ToyScenes', kind=kind),
            sampler=dict(type='InfiniteSampler', shuffle=True),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        train_cfg=dict(by_epoch=False, max_iters=steps),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3)),
        randomness=dict(seed=3),
        work_dir=str(folder / kind),
        **options,
    )
    Config(content).dump(path)
    return path


def trained(folder: Path, kind: str, steps: int = 6, **options):
    path = config(folder, kind, steps)
    return run(prepare(path, options=dict(default_hooks=dict(progress=None)), **options))


@pytest.mark.parametrize('kind', KINDS)
def test_it_trains_and_resumes_exactly(kind, tmp_path):
    whole = trained(tmp_path / 'whole', kind)
    trained(tmp_path / 'parts', kind, steps=3)
    rest = trained(tmp_path / 'parts', kind, resume=True)
    state, again = whole.model.state_dict(), rest.model.state_dict()
    assert state and all(name.startswith('student.') for name in state)
    assert all(value.equal(again[name]) for name, value in state.items())
    checkpoint = torch.load(tmp_path / 'parts' / kind / 'iter_6.pth', weights_only=True)
    assert ('teacher' in checkpoint['meta']['vfd']) == (kind != 'clouds')
    if kind == 'clouds':
        assert rest.model.seen == whole.model.seen == 24


def test_the_prompt_is_resized_with_the_image_and_the_student_needs_none(tmp_path):
    runner = trained(tmp_path, 'depth')
    seen = []
    forward = runner.model.teacher.source.network[0].register_forward_pre_hook(
        lambda _, args: seen.append(args[0])
    )
    batch = pseudo_collate([runner.train_dataloader.dataset[k] for k in range(4)])
    data = runner.model.data_preprocessor(batch, True)
    runner.model(**data, mode='loss')
    forward.remove()
    assert seen[0].shape == (4, 4, 24, 24)
    (first, *_) = runner.model(**data, mode='predict')
    assert first.pred_depth_map.shape == (1, SIZE, SIZE) and len(seen) == 1


SHAPES = {'depth': (2, 3, SIZE, SIZE), 'regions': (2, 3, SIZE, SIZE), 'clouds': (2, POINTS, 4)}


@pytest.mark.parametrize('target', ['safetensors', 'torchscript', 'onnx'])
@pytest.mark.parametrize('kind', KINDS)
def test_its_student_is_exported(kind, target, tmp_path):
    trained(tmp_path, kind)
    path = config(tmp_path, kind, example_inputs=dict(shape=SHAPES[kind]))
    certificate = export(path, tmp_path / kind / 'iter_6.pth', target)
    assert certificate.max_error <= certificate.limit
