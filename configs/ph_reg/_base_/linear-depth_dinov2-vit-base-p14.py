# Linear depth probe on the distilled DINOv2 ViT-B/14: 256 bins up to 10 m, NYUv2, total batch 16, 30 k iterations.
_base_ = '../../_base_/default_runtime.py'

default_scope = 'mmseg'
model = dict(
    type='vfd.DepthProbe',
    backbone=dict(
        type='vfd.RegisterViT',
        model_name='vit_base_patch14_dinov2',
        num_registers=16,
        img_size=518,
        checkpoint='work_dirs/ph-reg_dinov2-vit-base-p14_4xb8-amp-explr-30e-of-100e_flickr30k-518px/epoch_30.pth',
    ),
    in_channels=768,
    # Padded to whole patches; depth 0 is no depth.
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=0,
        size_divisor=14,
        test_cfg=dict(size_divisor=14),
    ),
)

load = [dict(type='vfd.LoadImage'), dict(type='vfd.LoadDepth', png_scale=1e-3)]
augment = [
    dict(type='RandomFlip', prob=0.5),
    dict(type='vfd.RandomGammaBrightnessColour', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='vfd.DepthFolderDataset',
        data_root='data/nyu',
        data_prefix=dict(img_path='images/train', depth_map_path='annotations/train'),
        pipeline=load
        + [
            dict(type='RandomRotate', prob=0.5, degree=2.5, seg_pad_val=0),
            dict(type='RandomCrop', crop_size=(416, 544)),
        ]
        + augment,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='vfd.DepthFolderDataset',
        data_root='data/nyu',
        data_prefix=dict(img_path='images/test', depth_map_path='annotations/test'),
        pipeline=load + [dict(type='PackSegInputs')],
    ),
)
test_dataloader = val_dataloader
# The part of the images that NYUv2 is usually evaluated on [project default: the paper does not say].
val_evaluator = dict(type='vfd.DepthMetric', max_depth=10.0, crop='nyu')
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=35, norm_type=2),
)
# The cosine from iteration 0 on, times the warm-up, as mmcv 1.x scheduled it. mmengine's linear warm-up arrives one
# iteration before its `end`.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=12801),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=0, T_max=30000, end=30000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=30000, val_interval=3000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=3000, max_keep_ckpts=1)
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
auto_scale_lr = dict(base_batch_size=16)
