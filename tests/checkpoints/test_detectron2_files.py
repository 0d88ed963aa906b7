"""Weights of detectron2's and mmdet's ViTDet detectors: every name has its place, and the network answers the same."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from vfd.backbones import ViTDet
from vfd.checkpoints import load_into, load_state
from vfd.checkpoints.detectron2 import load_vitdet, to_mmdet_names
from vfd.errors import UserError
from vfd.registry import MODELS

BACKBONE = {
    'embed_dim': 16,
    'depth': 4,
    'num_heads': 2,
    'patch_size': 8,
    'img_size': 64,
    'pretrain_img_size': 32,
}
WIDTH, CLASSES = 12, 3
NORM = {'type': 'vfd.LN2d', 'eps': 1e-6}


class Conv(nn.Conv2d):
    """detectron2's convolution: owns its norm and activation."""

    def __init__(
        self, inside: int, outside: int, kernel: int, norm: bool = False, relu: bool = False
    ) -> None:
        super().__init__(inside, outside, kernel, padding=kernel // 2, bias=not norm)
        self.relu = relu
        if norm:
            self.norm = LayerNorm2d(outside, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        x = self.norm(x) if hasattr(self, 'norm') else x
        return x.relu() if self.relu else x


def named(**modules: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict(modules)


class Detectron2Detector(nn.Module):
    """The tree of names of detectron2's ViTDet Mask R-CNN, and what it computes before any proposal."""

    def __init__(self) -> None:
        super().__init__()
        d = BACKBONE['embed_dim']
        tails = [
            [Conv(k, WIDTH, 1, norm=True), Conv(WIDTH, WIDTH, 3, norm=True)] for k in (d // 4, d // 2, d, d)
        ]
        up = [nn.ConvTranspose2d(d, d // 2, 2, stride=2), LayerNorm2d(d // 2, eps=1e-6), nn.GELU()]
        up.append(nn.ConvTranspose2d(d // 2, d // 4, 2, stride=2))
        self.backbone = named(
            net=ViTDet(**BACKBONE),
            simfp_2=nn.Sequential(*up, *tails[0]),
            simfp_3=nn.Sequential(nn.ConvTranspose2d(d, d // 2, 2, stride=2), *tails[1]),
            simfp_4=nn.Sequential(*tails[2]),
            simfp_5=nn.Sequential(nn.MaxPool2d(2), *tails[3]),
        )
        convs = OrderedDict(conv0=Conv(WIDTH, WIDTH, 3, relu=True), conv1=Conv(WIDTH, WIDTH, 3, relu=True))
        head = named(
            conv=nn.Sequential(convs),
            objectness_logits=nn.Conv2d(WIDTH, 3, 1),
            anchor_deltas=nn.Conv2d(WIDTH, 12, 1),
        )
        self.proposal_generator = named(rpn_head=head)
        box = {f'conv{k}': Conv(WIDTH, WIDTH, 3, norm=True, relu=True) for k in (1, 2, 3, 4)}
        mask = {f'mask_fcn{k}': Conv(WIDTH, WIDTH, 3, norm=True, relu=True) for k in (1, 2)}
        self.roi_heads = named(
            box_head=named(**box, fc1=nn.Linear(WIDTH * 49, 20)),
            box_predictor=named(cls_score=nn.Linear(20, CLASSES + 1), bbox_pred=nn.Linear(20, 4 * CLASSES)),
            mask_head=named(
                **mask,
                deconv=nn.ConvTranspose2d(WIDTH, WIDTH, 2, stride=2),
                predictor=nn.Conv2d(WIDTH, CLASSES, 1),
            ),
        )

    def forward(self, images: Tensor, boxes: Tensor) -> list[Tensor]:
        """Pyramid, objectness and offsets of (B, 3, H, W); scores, offsets and masks of (R, C, 7, 7)."""
        (last,) = self.backbone['net'](images)
        maps = [self.backbone[f'simfp_{k}'](last) for k in (2, 3, 4, 5)]
        maps.append(F.max_pool2d(maps[-1], 1, stride=2))
        head = self.proposal_generator['rpn_head']
        hidden = [head['conv'](map_) for map_ in maps]
        scores = [head['objectness_logits'](x) for x in hidden]
        deltas = [head['anchor_deltas'](x) for x in hidden]
        box_head, mask = self.roi_heads['box_head'], self.roi_heads['mask_head']
        x = boxes
        for k in (1, 2, 3, 4):
            x = box_head[f'conv{k}'](x)
        x = box_head['fc1'](x.flatten(1)).relu()
        predictor = self.roi_heads['box_predictor']
        masks = mask['predictor'](mask['deconv'](mask['mask_fcn2'](mask['mask_fcn1'](boxes))).relu())
        return [*maps, *scores, *deltas, predictor['cls_score'](x), predictor['bbox_pred'](x), masks]


def ours() -> nn.Module:
    """The same detector in mmdet."""
    box = {
        'type': 'Shared4Conv1FCBBoxHead',
        'in_channels': WIDTH,
        'conv_out_channels': WIDTH,
        'norm_cfg': NORM,
    }
    mask = {'type': 'FCNMaskHead', 'in_channels': WIDTH, 'conv_out_channels': WIDTH, 'norm_cfg': NORM}
    extractor = {
        'type': 'SingleRoIExtractor', 'out_channels': WIDTH, 'featmap_strides': [2, 4, 8, 16],
        'roi_layer': {'type': 'RoIAlign', 'output_size': 7},
    }  # fmt: skip
    anchors = {'type': 'AnchorGenerator', 'scales': [8], 'ratios': [0.5, 1, 2], 'strides': [2, 4, 8, 16, 32]}
    config = {
        'type': 'mmdet.MaskRCNN',
        'backbone': {'type': 'vfd.ViTDet', **BACKBONE},
        'neck': {'type': 'vfd.SimpleFeaturePyramid', 'in_channels': BACKBONE['embed_dim'], 'out_channels': WIDTH},
        'rpn_head': {
            'type': 'RPNHead', 'in_channels': WIDTH, 'feat_channels': WIDTH, 'num_convs': 2,
            'anchor_generator': anchors,
        },
        'roi_head': {
            'type': 'StandardRoIHead', 'bbox_roi_extractor': extractor, 'mask_roi_extractor': extractor,
            'bbox_head': {**box, 'fc_out_channels': 20, 'num_classes': CLASSES},
            'mask_head': {**mask, 'num_convs': 2, 'num_classes': CLASSES},
        },
        'train_cfg': None,
        'test_cfg': {'rpn': {}, 'rcnn': {}},
    }  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(ConfigDict(config)).eval()


def answers(model: nn.Module, images: Tensor, boxes: Tensor) -> list[Tensor]:
    maps = model.extract_feat(images)
    scores, deltas = model.rpn_head(maps)
    head = model.roi_head
    return [*maps, *scores, *deltas, *head.bbox_head(boxes), head.mask_head(boxes)]


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    """A detector as detectron2 would publish it, and the file."""
    torch.manual_seed(0)
    model = Detectron2Detector().eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 1.0)
        assert parameter.requires_grad, name
    arrays = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    path = tmp_path_factory.mktemp('detectron2') / 'model_final.pkl'
    path.write_bytes(pickle.dumps({'model': arrays, '__author__': 'Detectron2 Model Zoo'}))
    return model, path


def test_every_tensor_finds_its_place_and_the_answers_are_equal(published):
    theirs, path = published
    file = load_vitdet(path)
    assert file.layout == 'detectron2'
    model = ours()
    report = load_into(model, file)
    assert not report.unused and not report.missing and not report.reshaped
    images, boxes = torch.randn(2, 3, 64, 48), torch.randn(5, WIDTH, 7, 7)
    with torch.no_grad():
        expected, found = theirs(images, boxes), answers(model, images, boxes)
    assert len(expected) == len(found) == 18
    for k, (a, b) in enumerate(zip(expected, found, strict=True)):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4 * float(a.abs().max()), msg=f'answer {k}')


def test_a_torch_file_with_the_student_of_a_distiller(published, tmp_path):
    theirs, _ = published
    path = tmp_path / 'model.pth'
    torch.save({'model': {f'student.{k}': v for k, v in theirs.state_dict().items()}}, path)
    report = load_into(ours(), load_vitdet(path))
    assert not report.unused and not report.missing


def test_names_of_mmdets_project(published, tmp_path):
    """Its channel norm is called after no layer that mmcv knows."""
    _, path = published
    state = to_mmdet_names(load_state(path)).state
    theirs = {name.replace('.ln.', '.norm_layer.'): value for name, value in state.items()}
    assert theirs.keys() != state.keys()
    torch.save({'state_dict': theirs, 'meta': {'mmengine_version': '0.10'}}, tmp_path / 'mmdet.pth')
    report = load_into(ours(), load_vitdet(tmp_path / 'mmdet.pth'))
    assert not report.unused and not report.missing


def test_other_files_keep_their_names(tmp_path):
    torch.save({'backbone.conv1.weight': torch.zeros(2)}, tmp_path / 'plain.pth')
    file = load_vitdet(tmp_path / 'plain.pth')
    assert list(file.state) == ['backbone.conv1.weight'] and file.layout == 'plain'


def test_a_single_convolution_in_the_region_proposal_network(tmp_path):
    arrays = {
        f'proposal_generator.rpn_head.{name}': np.zeros(2, np.float32)
        for name in ('conv.weight', 'conv.bias', 'objectness_logits.bias', 'anchor_deltas.weight')
    }
    (tmp_path / 'one.pkl').write_bytes(pickle.dumps({'model': arrays}))
    assert set(load_vitdet(tmp_path / 'one.pkl').state) == {
        'rpn_head.rpn_conv.weight', 'rpn_head.rpn_conv.bias', 'rpn_head.rpn_cls.bias', 'rpn_head.rpn_reg.weight',
    }  # fmt: skip


class Harm:
    called: ClassVar[list[str]] = []

    def __reduce__(self):
        return (Harm.called.append, ('x',))


def test_code_in_a_pickle_is_not_run(tmp_path):
    path = tmp_path / 'harm.pkl'
    path.write_bytes(pickle.dumps({'model': {'backbone.net.pos_embed': np.zeros(2)}, 'x': Harm()}))
    with pytest.raises(UserError, match='could run code'):
        load_vitdet(path)
    assert not Harm.called


def test_teacher_reads_the_pickle_and_needs_no_second_stage(published, tmp_path):
    _, path = published
    with path.open('rb') as stream:
        arrays = pickle.load(stream)['model']  # our own file
    first_stage = {name: value for name, value in arrays.items() if not name.startswith('roi_heads')}
    (tmp_path / 'first.pkl').write_bytes(pickle.dumps({'model': first_stage}))
    preprocessor = {
        'type': 'mmdet.DetDataPreprocessor',
        'mean': [0, 0, 0],
        'std': [1, 1, 1],
        'bgr_to_rgb': True,
    }
    model = ours()
    config = {
        'type': 'vfd.Teacher',
        'source': {'type': 'vfd.MMDetSource', 'model': {
            'type': 'mmdet.MaskRCNN',
            'backbone': {'type': 'vfd.ViTDet', **BACKBONE},
            'neck': {'type': 'vfd.SimpleFeaturePyramid', 'in_channels': 16, 'out_channels': WIDTH},
            'rpn_head': {
                'type': 'RPNHead', 'in_channels': WIDTH, 'feat_channels': WIDTH, 'num_convs': 2,
                'anchor_generator': {
                    'type': 'AnchorGenerator', 'scales': [8], 'ratios': [0.5, 1, 2], 'strides': [2, 4, 8, 16, 32],
                },
            },
            'data_preprocessor': preprocessor,
        }},
        'checkpoint': str(tmp_path / 'first.pkl'),
        'taps': ['neck.3', 'rpn.0'],
    }  # fmt: skip
    with DefaultScope.overwrite_default_scope('mmdet'):
        teacher = MODELS.build(config)
        images = torch.randn(1, 3, 64, 64)
        load_into(model, load_vitdet(path))
        maps = model.extract_feat(images)
        found = teacher(images)
        torch.testing.assert_close(found['neck.3'], maps[3])
        torch.testing.assert_close(found['rpn.0'], model.rpn_head(maps)[0][0])
        with pytest.raises(UserError, match=r'teacher mmdet:MaskRCNN.*Missing .*neck'):
            lacking = {k: v for k, v in first_stage.items() if 'simfp_4' not in k}
            (tmp_path / 'first.pkl').write_bytes(pickle.dumps({'model': lacking}))
            MODELS.build(config)
