# MAE's own fine-tuning of ViT-L. Published by MAE's authors: 85.95 % top-1.
_base_ = [
    '../_base_/models/vit-finetune_gap.py',
    '../_base_/datasets/in1k_mae-finetune224.py',
    '../_base_/schedules/adamw-layer-decay_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    model_name='vit_large_patch16_224',
    drop_path_rate=0.2,
    checkpoint='checkpoints/mae_pretrain_vit_large.pth',
)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(lr=4e-3),
    paramwise_cfg=dict(layer_decay=0.75),
)
param_scheduler = dict(warmup=5, eta_min_ratio=2.5e-4)
train_cfg = dict(max_epochs=50)
auto_scale_lr = dict(base_batch_size=1024)
