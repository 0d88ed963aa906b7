# Linear segmentation probe on the distilled DINOv2 ViT-B/14: batch norm and one linear layer, 518 px, total batch 8.
_base_ = '../../_base_/default_runtime.py'

default_scope = 'mmseg'
crop_size = (518, 518)
model = dict(
    type='vfd.SegmentationProbe',
    backbone=dict(
        type='vfd.RegisterViT',
        model_name='vit_base_patch14_dinov2',
        num_registers=16,
        img_size=crop_size,
        checkpoint='work_dirs/ph-reg_dinov2-vit-base-p14_4xb8-amp-explr-30e-of-100e_flickr30k-518px/epoch_30.pth',
    ),
    decode_head=dict(
        type='vfd.LinearSegHead',
        in_channels=768,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        # Averaged over all pixels, those without label included, as published.
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=False),
    ),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(341, 341)),
    # Test images narrower than a crop are padded to it.
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=crop_size,
        test_cfg=dict(size=crop_size),
    ),
)

train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 518), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='Resize', scale=(2048, 518), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4))
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=4000, max_keep_ckpts=1)
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
auto_scale_lr = dict(base_batch_size=8)
