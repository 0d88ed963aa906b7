# AdamW with warm-up and cosine by iteration; each config sets rate, decay and length.
_base_ = '../../_base_/default_runtime.py'

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(flat_decay_mult=0.0, bias_decay_mult=0.0, norm_decay_mult=0.0),
)
param_scheduler = dict(type='vfd.WarmupCosineByIter', warmup=50, by_epoch=False)
train_cfg = dict(by_epoch=False, max_iters=800)

default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=400, max_keep_ckpts=1),
)
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=0)
log_processor = dict(by_epoch=False)
