# AdamW of MAE's fine-tuning: layer-wise learning rates; decay 0.05 on all but vectors, biases, position table and class
# token; linear warm-up from 0, cosine by iteration down to 1e-6 (eta_min_ratio = 1e-6 / lr). Each config sets lr,
# layer_decay, warmup and length.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='vfd.LayerDecay',
    paramwise_cfg=dict(layer_decay=0.75, no_decay=['1d', 'bias', 'pos_embed', 'cls_token']),
)
param_scheduler = dict(
    type='vfd.WarmupCosineByIter',
    warmup=5,
    eta_min_ratio=5e-4,
    by_epoch=True,
    convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=5)
val_cfg = dict()
test_cfg = dict()
