# 160 k iterations with a total batch of 16, in mixed precision. Position tables and the class token are decayed; vectors
# are not.
_base_ = '../default_runtime.py'

default_scope = 'mmseg'
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    constructor='vfd.LayerDecay',
    paramwise_cfg=dict(layer_decay=0.65, no_decay=('1d', 'bias')),
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
# Down a straight line from iteration 0 on, times the warm-up, as mmcv 1.x scheduled it. mmengine's schedules arrive one
# iteration before their `end`.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1501),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=160001),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(by_epoch=False, interval=16000, max_keep_ckpts=3),
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=False)
auto_scale_lr = dict(base_batch_size=16)
