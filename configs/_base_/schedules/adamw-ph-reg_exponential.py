# AdamW with decay 0.01 on everything that trains, registers, positions and norms too; exponential by epoch from lr to
# its 20th part, set after each step; no clipping. A batch whose loss is not finite is skipped.
_base_ = '../default_runtime.py'

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=1.0,
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01, fused=True),
)
param_scheduler = dict(
    type='vfd.ShiftedExponentialByIter', eta_min_ratio=5e-6 / 1e-4, by_epoch=True, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=100)
default_hooks = dict(non_finite=dict(type='vfd.NonFiniteHook', action='skip'))
