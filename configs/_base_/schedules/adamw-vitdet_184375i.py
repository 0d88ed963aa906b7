# 100 epochs of COCO with a total batch of 64, without mixed precision (--amp turns it on). Biases are decayed.
_base_ = '../default_runtime.py'

default_scope = 'mmdet'
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='vfd.LayerDecay',
    paramwise_cfg=dict(layer_decay=0.7, no_decay=('norm', 'pos_embed')),
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(
        type='MultiStepLR',
        by_epoch=False,
        begin=0,
        end=184375,
        milestones=[163889, 177546],
        gamma=0.1),
]
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=184375, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=3),
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
auto_scale_lr = dict(base_batch_size=64)
