# Fine-tuning of the ViT-Ti that DMAE pre-trained. No script for it was released; the settings are those of ViT-B [ours].
_base_ = [
    '../_base_/models/vit-finetune_gap.py',
    '../_base_/datasets/in1k_mae-finetune224.py',
    '../_base_/schedules/adamw-layer-decay_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    model_name='vit_tiny_patch16_224',
    drop_path_rate=0.15,
    checkpoint='work_dirs/dmae_vit-tiny-p16_vit-base-p16_8xb128-accum4-amp-coslr-100e_in1k/epoch_100.pth',
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(layer_decay=0.75),
)
param_scheduler = dict(warmup=20, eta_min_ratio=5e-4)
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=1024)
