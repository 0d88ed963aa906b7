# Stage 3 of further pre-training: AdamW, decay 0.01 on all but biases, positions and the class token (weights of layer
# norms are decayed), 10,000 iterations, 500 of them warm-up, linear to 0, gradients clipped to length 1. One rate for
# all layers. One test, at the end.
_base_ = '../default_runtime.py'

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.01, fused=True),
    constructor='vfd.LayerDecay',
    paramwise_cfg=dict(layer_decay=1.0, no_decay=('bias', 'pos_embed', 'cls_token')),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = dict(type='vfd.WarmupLinearByIter', warmup=500, by_epoch=False)
train_cfg = dict(by_epoch=False, max_iters=10000, val_interval=10000)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2500))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(base_batch_size=32)
