# The segmentation stage on a laptop: a folder of images and label maps, tiny segmentors, CPU. The teacher is RANDOM: it
# shows that everything runs, and trains nothing useful. Name a real one with --cfg-options model.teacher.checkpoint=FILE.
_base_ = [
    '../_base_/models/g2sd-seg_upernet_vit.py',
    '../_base_/schedules/adamw-upernet_160k.py',
]

classes = ('background', 'disc', 'box')
data_root = 'data/seg-small'
crop_size = (64, 64)
norm_cfg = dict(type='BN')
data_preprocessor = dict(size=crop_size, test_cfg=dict(size=crop_size))
backbone = dict(
    arch=None,
    img_size=crop_size,
    patch_size=8,
    num_heads=2,
    depth=4,
    out_indices=(0, 1, 2, 3),
    norm_cfg=norm_cfg)
head = dict(channels=16, num_classes=len(classes), norm_cfg=norm_cfg)
model = dict(
    student=dict(
        backbone=dict(backbone, embed_dim=32),
        decode_head=dict(head, in_channels=[32, 32, 32, 32]),
        auxiliary_head=dict(head, in_channels=32),
        test_cfg=dict(crop_size=crop_size, stride=(42, 42))),
    teacher=dict(
        source=dict(
            model=dict(
                data_preprocessor=data_preprocessor,
                backbone=dict(backbone, embed_dim=48),
                decode_head=dict(head, in_channels=[48, 48, 48, 48]))),
        checkpoint='random'),
    data_preprocessor=data_preprocessor)

train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(128, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='Resize', scale=(128, 64), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    img_suffix='.png',
    seg_map_suffix='.png')
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='train/images', seg_map_path='train/labels'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='val/images', seg_map_path='val/labels'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

optim_wrapper = dict(_delete_=True, type='OptimWrapper',
    constructor='vfd.LayerDecay',
    paramwise_cfg=dict(layer_decay=0.65, no_decay=('1d', 'bias')),
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=6),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=21),
]
train_cfg = dict(max_iters=20, val_interval=20)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=10))
auto_scale_lr = dict(base_batch_size=4)
