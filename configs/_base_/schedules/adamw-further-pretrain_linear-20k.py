# Stages 1 and 2 of further pre-training: AdamW, decay 0.01 on all but vectors and biases, 20,000 iterations, linear to
# 0 without warm-up, no clipping.
_base_ = '../default_runtime.py'

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True),
    paramwise_cfg=dict(flat_decay_mult=0.0, bias_decay_mult=0.0, norm_decay_mult=0.0),
)
param_scheduler = dict(type='vfd.WarmupLinearByIter', by_epoch=False)
train_cfg = dict(by_epoch=False, max_iters=20000)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(base_batch_size=64)
