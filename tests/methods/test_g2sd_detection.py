"""G2SD, detection: what the teacher does and does not, the loss, the small config from end to end, other teachers."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from PIL import Image

from vfd.apis import config as config_api
from vfd.apis.training import test as evaluate
from vfd.apis.training import train
from vfd.errors import UserError
from vfd.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs' / 'g2sd'
TINY = CONFIGS / 'g2sd-det_tiny_1xb2-8i_coco-small.py'
FULL = sorted(CONFIGS.glob('g2sd-det_*_coco.py'))
RICHNESS = ['loss_richness_cls', 'loss_richness_feat']


@functools.cache
def load(path: Path = TINY):
    return config_api.load_config(path)


def build(model):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(copy.deepcopy(model))


@pytest.fixture
def model_config():
    return copy.deepcopy(load().model)


def samples(count: int = 2, size: int = 128) -> list:
    """Ground truth of one object an image, as the preprocessor hands it on."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    made = []
    for k in range(count):
        mask = np.zeros((1, size, size), dtype=np.uint8)
        mask[0, 20:70, 10 : 60 + k] = 1
        boxes = torch.tensor([[10.0, 20.0, 60.0 + k, 70.0]])
        truth = InstanceData(bboxes=boxes, labels=torch.tensor([k % 2]), masks=BitmapMasks(mask, size, size))
        shape = {'img_shape': (size, size), 'ori_shape': (size, size), 'pad_shape': (size, size)}
        shape |= {'batch_input_shape': (size, size), 'scale_factor': (1.0, 1.0), 'img_id': k}
        made.append(DetDataSample(metainfo=shape, gt_instances=truth))
        made[-1].ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
    return made


def images(count: int = 2, size: int = 128) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


def richness(losses) -> list[float]:
    return [float(losses[name].detach()) for name in RICHNESS]


# ------------------------------------------------------------------------------------------------------- behaviour


def test_loss_is_zero_at_first_and_full_after_the_warmup(model_config):
    model_config.distill_loss.warmup_iters = 500
    model = build(model_config).train()
    values = {}
    for iteration in (0, 250, 500, 5000):
        model.iteration = iteration
        torch.manual_seed(0)
        losses = model.loss(images(), samples())
        values[iteration] = np.array(richness(losses))
        assert model.iteration == iteration + 1
    assert not values[0].any()
    assert (values[500] > 0).all()
    np.testing.assert_allclose(values[250], values[500] / 2, rtol=1e-3)
    np.testing.assert_allclose(values[5000], values[500], rtol=1e-3)
    for name in ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'):
        assert name in losses


def test_the_warmup_counts_optimizer_steps(model_config):
    model_config.distill_loss.warmup_iters = 500
    model_config.student.backbone.drop_path_rate = 0.0
    model = build(model_config).train()
    model.iteration = 100
    torch.manual_seed(0)
    expected = richness(model.loss(images(), samples()))
    model.accumulative_counts = 4
    for model.iteration in (400, 403):
        torch.manual_seed(0)
        np.testing.assert_allclose(richness(model.loss(images(), samples())), expected, rtol=1e-5)


def test_own_losses_are_those_of_the_student_alone(model_config):
    model_config.student.backbone.drop_path_rate = 0.0
    model = build(model_config).train()
    torch.manual_seed(0)
    ours = model.loss(images(), samples())
    torch.manual_seed(0)
    alone = model.student.loss(images(), samples())
    assert set(ours) == {*alone, *RICHNESS}
    for name, value in alone.items():
        torch.testing.assert_close(ours[name], value)


def test_evaluation_mode_does_not_count(model_config):
    model = build(model_config).eval()
    model.loss(images(), samples())
    assert model.iteration == 0


def test_student_is_run_once_and_the_teacher_makes_no_proposals(model_config, monkeypatch):
    from mmdet.models.dense_heads import RPNHead

    model = build(model_config).train()
    calls: dict[str, list] = {}
    for name in ('forward', 'predict_by_feat', 'loss_by_feat', 'get_targets'):
        original = getattr(RPNHead, name)

        def counted(self, *args, _name=name, _original=original, **kwargs):
            calls.setdefault(_name, []).append(self)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(RPNHead, name, counted)
    backbones: list = []
    for network in (model.student, model.teacher.network):
        network.backbone.register_forward_hook(lambda net, *_: backbones.append(net))
    model.loss(images(), samples())
    student, teacher = model.student.rpn_head, model.teacher.network.rpn_head
    assert [head is student for head in calls['forward']] == [False, True]
    assert calls['forward'][0] is teacher
    for name in ('predict_by_feat', 'loss_by_feat', 'get_targets'):
        assert calls[name] == [student]
    assert backbones == [model.teacher.network.backbone, model.student.backbone]


def test_teacher_gets_no_gradient_does_not_change_and_is_deterministic(model_config):
    model = build(model_config).train()
    model.iteration = 10
    network = model.teacher.network
    assert not network.with_roi_head and not network.training
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    sum(_scalars(model.loss(images(), samples()))).backward()
    optimizer.step()
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert all(p.grad is not None for p in model.adapter.parameters())
    assert {name.split('.')[0] for name in model.state_dict()} == {'student', 'adapter'}
    first, second = model.teacher(images()), model.teacher(images())
    assert all(value.equal(second[tap]) for tap, value in first.items())


def _scalars(losses):
    for value in losses.values():
        if isinstance(value, (list, tuple)):
            yield from value
        elif value.requires_grad:
            yield value


def test_teacher_train_mode_is_the_published_mistake(model_config):
    model_config.teacher_train_mode = True
    model_config.teacher.source.model.backbone.drop_path_rate = 0.5
    model = build(model_config).train()
    first, second = model.teacher(images()), model.teacher(images())
    assert any(not value.equal(second[tap]) for tap, value in first.items())
    model.eval()
    first, second = model.teacher(images()), model.teacher(images())
    assert all(value.equal(second[tap]) for tap, value in first.items())


def test_teacher_train_mode_is_refused_for_batch_norm(model_config):
    backbone = {'type': 'mmdet.ResNet', 'depth': 18, 'base_channels': 8}
    neck = {'type': 'mmdet.FPN', 'in_channels': [8, 16, 32, 64], 'out_channels': 24, 'num_outs': 5}
    source = model_config.teacher.source.model
    source.backbone, source.neck = backbone, neck
    model = build(model_config)  # a teacher of another kind, evaluated
    model.loss(images(), samples())
    model_config.teacher_train_mode = True
    with pytest.raises(UserError, match='batch-norm statistics'):
        build(model_config)


def test_saturated_student_gives_finite_losses_and_gradients(model_config):
    model = build(model_config).train()
    model.iteration = 1000
    with torch.no_grad():
        model.student.rpn_head.rpn_cls.weight.zero_()
        model.student.rpn_head.rpn_cls.bias.copy_(torch.tensor([1e4, -1e4, 0.0]))
    losses = model.loss(images(), samples())
    sum(losses[name] for name in RICHNESS).backward()
    assert all(np.isfinite(richness(losses)))
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize('kind', ['CascadeRCNN', 'FasterRCNN'])
def test_other_two_stage_detectors(model_config, kind):
    student = model_config.student
    student.type = f'mmdet.{kind}'
    student.roi_head.mask_head = student.roi_head.mask_roi_extractor = None
    if kind == 'CascadeRCNN':
        box_head, sampling = student.roi_head.bbox_head, student.train_cfg.rcnn
        student.roi_head = {
            'type': 'CascadeRoIHead', 'num_stages': 2, 'stage_loss_weights': [1, 0.5],
            'bbox_roi_extractor': student.roi_head.bbox_roi_extractor, 'bbox_head': [box_head, box_head],
        }  # fmt: skip
        student.train_cfg.rcnn = [sampling, sampling]
    model = build(model_config).train()
    model.iteration = 4
    losses = model.loss(images(), samples())
    assert all(value > 0 for value in richness(losses))
    assert ('s1.loss_cls' in losses) == (kind == 'CascadeRCNN')


def test_mixed_precision(model_config):
    model = build(model_config).train()
    model.iteration = 4
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(images(), samples())
    assert all(losses[name].dtype == torch.float32 for name in RICHNESS)
    sum(losses[name] for name in RICHNESS).backward()


# -------------------------------------------------------------------------------------------------------- mistakes


def test_levels_that_differ(model_config):
    source = model_config.teacher.source.model
    source.neck.num_outs = 6
    source.rpn_head.anchor_generator.strides = [4, 8, 16, 32, 64, 128]
    with pytest.raises(
        UserError, match=r'strides of the levels: student .*\(64, 64\)\], teacher .*\(128, 128\)'
    ):
        build(model_config)
    source.rpn_head.anchor_generator.strides = [4, 8, 16, 32]
    with pytest.raises(UserError, match=r'neck\.4.*neck\.0 to neck\.3'):
        build(model_config)


def test_anchors_that_differ(model_config):
    model_config.teacher.source.model.rpn_head.anchor_generator.ratios = [1.0]
    with pytest.raises(UserError, match='anchors a place: student 3, teacher 1'):
        build(model_config)


def test_student_without_region_proposals(model_config):
    model_config.student = {'type': 'mmdet.RetinaNet', 'bbox_head': {'type': 'RetinaHead'}}
    with pytest.raises(UserError, match=r'mmdet\.RetinaNet has no rpn_head'):
        build(model_config)


def test_teacher_of_another_kind(model_config):
    source = {
        'type': 'vfd.MMSource',
        'model': {'type': 'mmdet.ResNet', 'depth': 18},
        'mean': [0] * 3,
        'std': [1] * 3,
    }
    model_config.teacher.source = source
    with pytest.raises(UserError, match=r'teacher tap|MMDetSource'):
        build(model_config)


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda m: m.teacher.source.model.pop('data_preprocessor'), 'no data_preprocessor'),
        (lambda m: m.teacher.source.model.pop('rpn_head'), 'no region proposal network'),
        (lambda m: m.teacher.update(checkpoint='pretrained'), 'not "pretrained"'),
    ],
)
def test_teacher_that_lacks_something(model_config, change, text):
    change(model_config)
    with pytest.raises(UserError, match=text):
        build(model_config)


def test_patches_of_a_subset_are_refused(model_config):
    model = build(model_config)
    with pytest.raises(UserError, match='ids_keep'):
        model.teacher(images(), ids_keep=torch.zeros(2, 3, dtype=torch.long))


def test_teacher_answers_features_alone(model_config):
    teacher = {**model_config.teacher, 'taps': ['neck.1', 'neck.-1']}
    teacher = build(teacher)
    assert teacher.network.rpn_head is None
    shapes = {tap: tuple(value.shape) for tap, value in teacher(images()).items()}
    assert shapes == {'neck.1': (2, 24, 16, 16), 'neck.-1': (2, 24, 2, 2)}


# --------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize('path', FULL, ids=[path.stem for path in FULL])
def test_settings_are_the_published_ones(path):
    cfg = load(path)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == 64
    assert '_8xb8-lsj-184375i_coco' in path.stem
    assert cfg.train_cfg.max_iters == 184375
    warmup, steps = cfg.param_scheduler
    assert (warmup.start_factor, warmup.begin, warmup.end) == (0.001, 0, 250)
    assert (steps.milestones, steps.gamma) == ([163889, 177546], 0.1)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    assert tuple(optimizer.betas) == (0.9, 0.999)
    assert cfg.optim_wrapper.paramwise_cfg == {'layer_decay': 0.7, 'no_decay': ('norm', 'pos_embed')}
    loss = cfg.model.distill_loss
    assert (loss.feature_weight, loss.objectness_weight, loss.warmup_iters) == (0.001, 0.1, 500)
    student, teacher = cfg.model.student, cfg.model.teacher.source.model
    assert student.backbone.drop_path_rate == 0.1 and teacher.backbone.arch == 'base'
    variant = '-h12' if student.backbone.get('num_heads') == 12 else ''
    assert f'vitdet-{student.backbone.arch}{variant}_vitdet-base' in path.stem
    jitter = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomResize')
    assert (jitter.scale, jitter.ratio_range) == ((1024, 1024), (0.1, 2.0))
    assert cfg.model.data_preprocessor.pad_size_divisor == 1024
    assert cfg.val_evaluator.metric == ['bbox', 'segm']
    first = Path(student.backbone.checkpoint).parts[1]
    generic = load(CONFIGS / f'{first}.py')
    assert Path(student.backbone.checkpoint).name == f'epoch_{generic.train_cfg.max_epochs}.pth'
    assert generic.model.student.arch == student.backbone.arch
    assert generic.model.student.get('num_heads') == student.backbone.get('num_heads')


def test_parameter_groups(model_config):
    from mmengine.optim import build_optim_wrapper

    model = build(model_config)
    with DefaultScope.overwrite_default_scope('mmdet'):
        wrapper = build_optim_wrapper(model, copy.deepcopy(load().optim_wrapper))
    settings = {
        id(parameter): (group['lr'] / wrapper.optimizer.defaults['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    found = {name: settings[id(parameter)] for name, parameter in model.named_parameters()}
    expected = {
        'student.backbone.pos_embed': (0.7**5, 0),
        'student.backbone.patch_embed.proj.bias': (0.7**5, 0.05),
        'student.backbone.blocks.0.norm1.bias': (0.7**4, 0),
        'student.backbone.blocks.0.attn.qkv.bias': (0.7**4, 0.05),
        'student.backbone.blocks.3.attn.rel_pos_h': (0.7, 0.05),
        'student.neck.fpn1.0.bias': (1, 0.05),
        'student.neck.lateral_convs.0.ln.weight': (1, 0),
        'student.roi_head.bbox_head.shared_convs.3.ln.bias': (1, 0),
        'student.roi_head.mask_head.conv_logits.weight': (1, 0.05),
        'adapter.conv.4.bias': (1, 0.05),
    }
    for name, (rate, decay) in expected.items():
        assert found[name] == (pytest.approx(rate), decay), name


@pytest.mark.parametrize('path', FULL, ids=[path.stem for path in FULL])
def test_full_scale_networks_build_and_their_levels_fit(path):
    cfg = load(path)
    first_stage = {'roi_head': None, 'train_cfg': None, 'test_cfg': {'rpn': None}}
    with torch.device('meta'):
        student = build(cfg.model.student)
        teacher = build(
            ConfigDict({**cfg.model.teacher.source.model, **first_stage, 'data_preprocessor': None})
        )
        pyramids = [network.extract_feat(torch.zeros(1, 3, 1024, 1024)) for network in (student, teacher)]
        scores = [teacher.rpn_head(maps)[0] for maps in pyramids]
    for maps in pyramids:
        assert [tuple(map_.shape[1:]) for map_ in maps] == [
            (256, side, side) for side in (256, 128, 64, 32, 16)
        ]
    assert [score.shape[1] for levels in scores for score in levels] == [3] * 10


# -------------------------------------------------------------------------------------------------- from end to end


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A folder in COCO's layout: discs and boxes on noise."""
    root = tmp_path_factory.mktemp('coco')
    rng = np.random.default_rng(0)
    for part, count in (('train2017', 7), ('val2017', 2)):
        (root / part).mkdir()
        content: dict = {'images': [], 'annotations': [], 'categories': []}
        content['categories'] = [{'id': 1, 'name': 'disc'}, {'id': 2, 'name': 'box'}]
        for number in range(count):
            height, width = (100, 140) if number % 2 else (120, 90)
            pixels = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
            for kind in (1, 2):
                x, y = rng.integers(5, 30, 2)
                side = int(rng.integers(30, 50))
                x, y = int(x), int(y)
                pixels[y : y + side, x : x + side] = 120 * kind
                outline = [x, y, x + side, y, x + side, y + side, x, y + side]
                content['annotations'].append(
                    {'id': 10 * number + kind, 'image_id': number, 'category_id': kind, 'iscrowd': 0,
                     'bbox': [x, y, side, side], 'area': side * side, 'segmentation': [outline]}
                )  # fmt: skip
            Image.fromarray(pixels).save(root / part / f'{number}.jpg')
            content['images'].append(
                {'id': number, 'file_name': f'{number}.jpg', 'height': height, 'width': width}
            )
        (root / 'annotations').mkdir(exist_ok=True)
        (root / f'annotations/instances_{part}.json').write_text(json.dumps(content))
    return root


def options(folder: Path, **changes) -> dict:
    return {
        'train_dataloader.dataset.data_root': f'{folder}/',
        'val_dataloader.dataset.data_root': f'{folder}/',
        'test_dataloader.dataset.data_root': f'{folder}/',
        'val_evaluator.ann_file': f'{folder}/annotations/instances_val2017.json',
        'test_evaluator.ann_file': f'{folder}/annotations/instances_val2017.json',
        'visualizer.vis_backends': [],
        'randomness.seed': 3,
        'default_hooks.checkpoint.interval': 2,
        'train_cfg.max_iters': 4,
        **changes,
    }


def test_detector_train_a_moment_resume_exactly_and_evaluate(folder, tmp_path):
    whole = train(TINY, tmp_path / 'whole', options=options(folder))
    state = torch.load(tmp_path / 'whole/iter_4.pth', weights_only=True)['state_dict']
    assert {name.split('.')[0] for name in state} == {'student', 'adapter'}
    assert whole.model.iteration == 4
    history = whole.message_hub.get_scalar('train/loss_richness_feat').data[0]
    assert history[0] == 0 and (history[1:] > 0).all()
    metrics = {name for name in whole.message_hub.log_scalars if name.startswith('val/coco/')}
    assert {'val/coco/bbox_mAP', 'val/coco/segm_mAP'} <= metrics

    rest = train(TINY, tmp_path / 'rest', resume=str(tmp_path / 'whole/iter_2.pth'), options=options(folder))
    assert rest.model.iteration == 4
    resumed = rest.model.state_dict()
    assert list(resumed) == list(state)
    assert all(value.equal(resumed[name]) for name, value in state.items())

    values = evaluate(TINY, tmp_path / 'whole/iter_4.pth', tmp_path / 'test', options=options(folder))
    assert set(values) >= {'coco/bbox_mAP', 'coco/segm_mAP'}


def test_student_starts_from_the_generic_stage(model_config, tmp_path):
    decoder = {'decoder_embed_dim': 16, 'decoder_depth': 1, 'decoder_num_heads': 2}
    encoder = {'embed_dim': 32, 'depth': 4, 'num_heads': 2, 'img_size': 64}
    generic = build({'type': 'vfd.MaskedAutoencoder', **encoder, **decoder})
    path = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': {f'student.{k}': v for k, v in generic.state_dict().items()}}, path)
    model_config.student.backbone.checkpoint = str(path)
    model = build(model_config)
    model.init_weights()  # as mmengine's runner does
    backbone = model.student.backbone.state_dict()
    loaded = [name for name in backbone if 'rel_pos' not in name]
    assert len(loaded) == 3 + 4 * 12
    assert all(backbone[name].equal(generic.state_dict()[name]) for name in loaded)
