# FKD's script for transformers and mobile networks: 5 single-crop epochs of warm-up from 1e-5, then passes of 4 crops
# that count as 4 epochs, cosine to 1e-5 (the clock of the cosine runs from epoch 0), the last 4 epochs with single crops.
# The published 10 epochs of cooldown would follow epoch 300; training ends there [ours]. No decay of vectors, biases,
# position table and class token, as timm's recipes do [ours].
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={
            'cls_token': dict(decay_mult=0.0),
            'pos_embed': dict(decay_mult=0.0)
        }),
)
param_scheduler = dict(
    type='vfd.WarmupCosineByEpoch', warmup=5, warmup_start=5e-3, eta_min_ratio=5e-3)
train_cfg = dict(
    type='vfd.MultiCropEpochLoop', max_epochs=300, single_crop_warmup=5, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# images of a batch, each with 4 crops
auto_scale_lr = dict(base_batch_size=256)
