# The linear segmentation probe on a laptop: a folder of images and label maps, a tiny frozen network with RANDOM weights,
# CPU. Name real ones with --cfg-options model.backbone.checkpoint=FILE.
_base_ = './_base_/linear-seg_dinov2-vit-base-p14.py'

classes = ('background', 'disc', 'box')
crop_size = (64, 64)
model = dict(
    backbone=dict(
        model_name='vit_small_patch14_dinov2',
        num_registers=4,
        img_size=crop_size,
        patch_size=8,
        embed_dim=48,
        depth=2,
        num_heads=3,
        checkpoint='random',
    ),
    decode_head=dict(in_channels=48, num_classes=len(classes), norm_cfg=dict(type='BN')),
    test_cfg=dict(crop_size=crop_size, stride=(42, 42)),
    data_preprocessor=dict(size=crop_size, test_cfg=dict(size=crop_size)),
)
dataset = dict(
    type='BaseSegDataset',
    data_root='data/seg-small',
    metainfo=dict(classes=classes),
    img_suffix='.png',
    seg_map_suffix='.png',
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='train/images', seg_map_path='train/labels'),
        pipeline=_base_.train_pipeline[:2]
        + [
            dict(type='RandomResize', scale=(128, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
        ]
        + _base_.train_pipeline[4:],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='val/images', seg_map_path='val/labels'),
        pipeline=_base_.test_pipeline[:1]
        + [dict(type='Resize', scale=(128, 64), keep_ratio=True)]
        + _base_.test_pipeline[2:],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=1e-2))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=0, end=20)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=20, val_interval=20)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=10))
auto_scale_lr = dict(base_batch_size=4)
