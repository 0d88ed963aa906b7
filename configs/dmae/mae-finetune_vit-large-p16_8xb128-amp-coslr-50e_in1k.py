# MAE's own fine-tuning of ViT-L. Published by MAE's authors: 85.95 % top-1.
_base_ = './mae-finetune_vit-base-p16_8xb128-amp-coslr-100e_in1k.py'

model = dict(
    model_name='vit_large_patch16_224',
    drop_path_rate=0.2,
    checkpoint='checkpoints/mae_pretrain_vit_large.pth',
)
optim_wrapper = dict(optimizer=dict(lr=4e-3), paramwise_cfg=dict(layer_decay=0.75))
param_scheduler = dict(eta_min_ratio=2.5e-4)
train_cfg = dict(max_epochs=50)
