"""Whole models of the OpenMMLab packages and open_clip: one training step and one prediction each, on the CPU.

The configs are the packages' own (``mmdet::...``), thinned and without pretrained weights.
"""

import importlib

import numpy as np
import pytest
import torch
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

HEIGHT, WIDTH = 64, 96
WIDTHS = [16, 32, 64, 128]  # of the four stages of a thin ResNet


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(min(2, threads))
    yield
    torch.set_num_threads(threads)


def images(count=2):
    return list(torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), dtype=torch.uint8))


def without_pretrained(node):
    """Drop every reference to weights, and let single-process batches normalise without synchronisation."""
    if isinstance(node, dict):
        if isinstance(node.get('init_cfg'), dict) and node['init_cfg'].get('type') == 'Pretrained':
            node['init_cfg'] = None
        if 'pretrained' in node:
            node['pretrained'] = None
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else []:
        without_pretrained(child)


def model_config(name):
    config = get_config(name).model
    without_pretrained(config)
    return config


def one_step_and_predict(config, data, scope):
    """Train one iteration, check loss and gradients, and return the predictions of the model."""
    registry = importlib.import_module(f'{scope}.registry')
    importlib.import_module(f'{scope}.utils').register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope(scope):
        model = registry.MODELS.build(config)
        model.init_weights()
        for parameter in model.parameters():
            if not parameter.any():  # zeros at the end of residual branches stop the gradient of a first step
                torch.nn.init.normal_(parameter, std=0.02)
        model.train()
        largest = {}  # gradient of each backbone parameter; train_step clears them at its end
        for name, parameter in model.backbone.named_parameters():
            largest[name] = 0.0
            parameter.register_hook(lambda g, name=name: largest.update({name: g.abs().max().item()}))
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-4))
        losses = model.train_step(data, optimizer)
        assert 'loss' in losses and all(torch.isfinite(v).all() for k, v in losses.items() if 'loss' in k), (
            losses
        )
        without = [name for name, size in largest.items() if not 0 < size < float('inf')]
        assert largest and not without, f'no gradient reached {without}'
        model.eval()
        with torch.no_grad():
            return model.test_step(data)


# -- detection ---------------------------------------------------------------------------------------------


def detection_batch(masks=False):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    samples = []
    for boxes in ([[8, 6, 40, 38], [50, 20, 88, 60]], [[20, 10, 70, 50]]):
        instances = InstanceData(bboxes=torch.tensor(boxes).float(), labels=torch.arange(len(boxes)))
        if masks:
            bitmaps = np.zeros((len(boxes), HEIGHT, WIDTH), np.uint8)
            for bitmap, (x1, y1, x2, y2) in zip(bitmaps, boxes, strict=True):
                bitmap[y1:y2, x1:x2] = 1
            instances.masks = BitmapMasks(bitmaps, HEIGHT, WIDTH)
        shape = (HEIGHT, WIDTH)
        sample = DetDataSample(
            metainfo={'img_shape': shape, 'ori_shape': shape, 'scale_factor': (1.0, 1.0), 'img_id': 0}
        )
        sample.gt_instances = instances
        samples.append(sample)
    return {'inputs': images(), 'data_samples': samples}


def thin_detector(name, classes=3):
    """A detector config with a ResNet-18 of 16 to 128 channels, and heads of 32."""
    config = model_config(f'mmdet::{name}')
    config.backbone.update(depth=18, base_channels=WIDTHS[0], frozen_stages=-1, norm_eval=False)
    config.backbone.norm_cfg.requires_grad = True
    config.neck.in_channels = WIDTHS[-len(config.neck.in_channels) :]
    if config.neck.type == 'FPN':
        config.neck.out_channels = 32
    for head in (config.get('rpn_head'), config.get('bbox_head')):
        if head and 'in_channels' in head:
            head.update(in_channels=32, feat_channels=32)
    if 'roi_head' in config:
        roi_head = config.roi_head
        roi_head.bbox_roi_extractor.out_channels = 32
        roi_head.bbox_head.update(in_channels=32, fc_out_channels=64, num_classes=classes)
        if 'mask_head' in roi_head:
            roi_head.mask_roi_extractor.out_channels = 32
            roi_head.mask_head.update(in_channels=32, conv_out_channels=32, num_classes=classes)
        config.train_cfg.rpn_proposal.max_per_img = config.test_cfg.rpn.max_per_img = 50
        config.train_cfg.rcnn.sampler.num = 32
        config.test_cfg.rcnn.score_thr = 0.0  # an untrained model is sure of nothing
    else:
        config.bbox_head.num_classes = classes
        config.test_cfg.score_thr = 0.0
    return config


def check_detections(predictions):
    assert len(predictions) == 2
    for prediction in predictions:
        found = prediction.pred_instances
        assert len(found) > 0
        assert torch.isfinite(found.bboxes).all() and torch.isfinite(found.scores).all()
        assert found.bboxes.min() >= 0 and found.bboxes.max() <= WIDTH
        assert found.labels.max() < 3


def test_faster_rcnn():
    config = thin_detector('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    check_detections(one_step_and_predict(config, detection_batch(), 'mmdet'))


def test_mask_rcnn():
    config = thin_detector('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    predictions = one_step_and_predict(config, detection_batch(masks=True), 'mmdet')
    check_detections(predictions)
    assert predictions[0].pred_instances.masks.shape[1:] == (HEIGHT, WIDTH)


def test_retinanet():
    config = thin_detector('retinanet/retinanet_r50_fpn_1x_coco.py')
    check_detections(one_step_and_predict(config, detection_batch(), 'mmdet'))


def test_deformable_detr():
    config = thin_detector('deformable_detr/deformable-detr_r50_16xb2-50e_coco.py')
    config.num_queries = config.test_cfg.max_per_img = 20
    config.encoder.num_layers = config.decoder.num_layers = 1
    check_detections(one_step_and_predict(config, detection_batch(), 'mmdet'))


def test_dcnv2_faster_rcnn():
    config = thin_detector('dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py')
    assert config.backbone.dcn.type == 'DCNv2'
    config.backbone.update(
        depth=50, base_channels=8
    )  # only the bottleneck block takes deformable convolutions
    config.neck.in_channels = [32, 64, 128, 256]
    check_detections(one_step_and_predict(config, detection_batch(), 'mmdet'))


# -- segmentation ------------------------------------------------------------------------------------------


def segmentation_batch(classes):
    from mmseg.structures import SegDataSample

    samples = []
    for _ in range(2):
        shape = (HEIGHT, WIDTH)
        sample = SegDataSample(metainfo={'img_shape': shape, 'ori_shape': shape, 'pad_shape': shape})
        sample.gt_sem_seg = PixelData(data=torch.randint(0, classes, (1, HEIGHT, WIDTH)))
        samples.append(sample)
    return {'inputs': images(), 'data_samples': samples}


def check_segmentation(predictions, classes):
    assert len(predictions) == 2
    for prediction in predictions:
        assert prediction.pred_sem_seg.data.shape == (1, HEIGHT, WIDTH)
        assert prediction.pred_sem_seg.data.max() < classes
        assert torch.isfinite(prediction.seg_logits.data).all()


def test_upernet():
    config = model_config('mmseg::upernet/upernet_r18_4xb2-40k_cityscapes-512x1024.py')
    config.data_preprocessor.size = (HEIGHT, WIDTH)
    config.backbone.update(base_channels=WIDTHS[0], stem_channels=WIDTHS[0])
    config.decode_head.update(in_channels=WIDTHS, channels=32, num_classes=4)
    config.auxiliary_head.update(in_channels=WIDTHS[2], channels=16, num_classes=4)
    check_segmentation(one_step_and_predict(config, segmentation_batch(4), 'mmseg'), 4)


def test_mask2former():
    config = model_config('mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py')
    config.data_preprocessor.size = (HEIGHT, WIDTH)
    config.backbone.update(depth=18, base_channels=WIDTHS[0])
    config.backbone.norm_cfg.requires_grad = True
    head = config.decode_head
    head.update(in_channels=WIDTHS, num_classes=4, num_queries=10)
    head.loss_cls.class_weight = [1.0] * 4 + [0.1]
    head.pixel_decoder.encoder.num_layers = head.transformer_decoder.num_layers = 1
    head.train_cfg.num_points = 256
    check_segmentation(one_step_and_predict(config, segmentation_batch(4), 'mmseg'), 4)


# -- classification ----------------------------------------------------------------------------------------


def test_vit_classifier():
    config = model_config('mmpretrain::vision_transformer/vit-base-p16_32xb128-mae_in1k.py')
    config.data_preprocessor = {'mean': [127.5] * 3, 'std': [127.5] * 3, 'num_classes': 5}
    config.backbone.update(
        arch={'embed_dims': 48, 'num_layers': 2, 'num_heads': 4, 'feedforward_channels': 96},
        img_size=(HEIGHT, WIDTH),
        patch_size=16,
        drop_path_rate=0.0,
    )
    config.head.update(in_channels=48, num_classes=5)
    from mmpretrain.structures import DataSample

    samples = [DataSample().set_gt_label(label) for label in (1, 4)]
    predictions = one_step_and_predict(config, {'inputs': images(), 'data_samples': samples}, 'mmpretrain')
    for prediction in predictions:
        assert prediction.pred_score.shape == (5,)
        assert prediction.pred_score.sum().item() == pytest.approx(1, abs=1e-5)


def test_open_clip():
    open_clip = pytest.importorskip('open_clip')
    model = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={'layers': 2, 'width': 64, 'head_width': 32, 'patch_size': 16, 'image_size': 64},
        text_cfg={'context_length': 77, 'vocab_size': 49408, 'width': 32, 'heads': 2, 'layers': 1},
    )
    tokens = open_clip.get_tokenizer('ViT-B-32')(['a shirt', 'an ankle boot'])
    pixels = torch.stack(images())[:, :, :64, :64] / 127.5 - 1
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {n: p.detach().clone() for n, p in model.visual.named_parameters()}
    loss = open_clip.ClipLoss()(*model(pixels, tokens))
    assert torch.isfinite(loss)
    loss.backward()
    optimizer.step()
    assert not [n for n, p in model.visual.named_parameters() if torch.equal(p, before[n])]
    model.eval()
    with torch.no_grad():
        similarity = model.encode_image(pixels, normalize=True) @ model.encode_text(tokens, normalize=True).T
    assert similarity.shape == (2, 2) and similarity.abs().max() <= 1 + 1e-5
