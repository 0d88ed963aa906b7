# The detection stage on a laptop: a small folder in COCO's layout, tiny detectors, CPU. The teacher is RANDOM: it shows
# that everything runs, and trains nothing useful. Name a real one with --cfg-options model.teacher.checkpoint=FILE.
_base_ = [
    '../_base_/models/g2sd-det_mask-rcnn_vitdet.py',
    '../_base_/datasets/coco-instance_lsj1024.py',
    '../_base_/schedules/adamw-vitdet_184375i.py',
]

classes = ('disc', 'box')
data_root = 'data/coco-small/'
rpn_head = dict(
    in_channels=16,
    feat_channels=16,
    anchor_generator=dict(scales=[4]))
model = dict(
    student=dict(
        backbone=dict(
            arch=None, embed_dim=32, depth=4, num_heads=2, img_size=128, pretrain_img_size=64),
        neck=dict(in_channels=32, out_channels=16),
        rpn_head=rpn_head,
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=16),
            bbox_head=dict(
                in_channels=16, conv_out_channels=16, fc_out_channels=32, num_classes=len(classes)),
            mask_roi_extractor=dict(out_channels=16),
            mask_head=dict(
                in_channels=16, conv_out_channels=16, num_convs=1, num_classes=len(classes))),
        train_cfg=dict(
            rpn_proposal=dict(nms_pre=100, max_per_img=50), rcnn=dict(sampler=dict(num=32))),
        test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50))),
    teacher=dict(
        source=dict(
            model=dict(
                backbone=dict(
                    arch=None, embed_dim=48, depth=8, num_heads=3, img_size=128, window_size=4),
                neck=dict(in_channels=48, out_channels=24),
                rpn_head=dict(rpn_head, in_channels=24))),
        checkpoint='random'),
    distill_loss=dict(warmup_iters=4),
    data_preprocessor=dict(pad_size_divisor=128),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(128, 128), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(
        type='RandomCrop',
        crop_type='absolute',
        crop_size=(128, 128),
        recompute_bbox=True,
        allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
part = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(part, pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(part, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=2),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=8, milestones=[6, 7], gamma=0.1),
]
train_cfg = dict(max_iters=8, val_interval=8)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4))
auto_scale_lr = dict(base_batch_size=2)
del part, rpn_head
