# Mask R-CNN on ViTDet, ViT-S under ViT-B. The detector is mmdet's Mask R-CNN with what ViTDet changed (arXiv 2203.16527,
# section 4): a plain transformer, the simple pyramid, two convolutions in the region proposal network, four in the box
# head, layer norm in the heads. The teacher is detectron2's published ViTDet-B, 51.6 box AP and 45.9 mask AP.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='vfd.LN2d', eps=1e-6)
detector = _base_.model
detector.type = 'mmdet.MaskRCNN'
# Test images (longest side 1024) and training crops are padded to 1024 x 1024, with zeros after the normalisation.
data_preprocessor = dict(
    type='mmdet.DetDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_mask=True,
    pad_size_divisor=1024)
detector.pop('data_preprocessor')
detector.rpn_head.num_convs = 2
detector.roi_head.bbox_head.update(
    type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg)
detector.roi_head.mask_head.norm_cfg = norm_cfg

model = dict(
    _delete_=True,
    type='vfd.G2SDDetector',
    student=dict(
        detector,
        backbone=dict(type='vfd.ViTDet', arch='small', drop_path_rate=0.1),
        neck=dict(type='vfd.SimpleFeaturePyramid', in_channels=384)),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(
            type='vfd.MMDetSource',
            model=dict(
                type='mmdet.MaskRCNN',
                data_preprocessor=data_preprocessor,
                # only teacher_train_mode=True makes use of its drop path
                backbone=dict(type='vfd.ViTDet', arch='base', drop_path_rate=0.1),
                neck=dict(type='vfd.SimpleFeaturePyramid', in_channels=768),
                rpn_head=detector.rpn_head)),
        checkpoint='checkpoints/model_final_61ccd1.pkl'),
    distill_loss=dict(
        type='vfd.FeatureRichnessLoss', feature_weight=0.001, objectness_weight=0.1, warmup_iters=500),
    data_preprocessor=data_preprocessor,
)
# The parts are in the model; alone they would make every printed config half as long again.
del detector, norm_cfg
