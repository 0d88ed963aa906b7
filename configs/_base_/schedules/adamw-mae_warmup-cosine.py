# AdamW of masked autoencoders: decay 0.05 on all but vectors and biases (class and mask token are decayed), linear
# warm-up from 0, cosine by iteration. lr = 1.5e-4 * batch / 256 = 2.4e-3 at 4096; length and batch are set by each config.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2.4e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True),
    paramwise_cfg=dict(flat_decay_mult=0.0, bias_decay_mult=0.0, norm_decay_mult=0.0),
)
param_scheduler = dict(type='vfd.WarmupCosineByIter', warmup=20, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=100)
