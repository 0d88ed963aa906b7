# The linear depth probe on a laptop: a folder of images and depth maps, a tiny frozen network with RANDOM weights, CPU.
# Name real ones with --cfg-options model.backbone.checkpoint=FILE.
_base_ = './_base_/linear-depth_dinov2-vit-base-p14.py'

model = dict(
    backbone=dict(
        model_name='vit_small_patch14_dinov2',
        num_registers=4,
        img_size=64,
        patch_size=8,
        embed_dim=48,
        depth=2,
        num_heads=3,
        checkpoint='random',
    ),
    in_channels=48,
    num_bins=32,
    warm_up_iters=4,
    data_preprocessor=dict(size_divisor=8, test_cfg=dict(size_divisor=8)),
)
dataset = dict(data_root='data/depth-small')
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='train/images', depth_map_path='train/depth'),
        pipeline=_base_.load
        + [
            dict(type='RandomRotate', prob=0.5, degree=2.5, seg_pad_val=0),
            dict(type='RandomCrop', crop_size=(40, 52)),
        ]
        + _base_.augment,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(dataset, data_prefix=dict(img_path='val/images', depth_map_path='val/depth')),
)
test_dataloader = val_dataloader
val_evaluator = dict(crop=None)
test_evaluator = val_evaluator

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=4),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=0, T_max=12, end=12),
]
train_cfg = dict(max_iters=12, val_interval=12)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=6))
auto_scale_lr = dict(base_batch_size=2)
