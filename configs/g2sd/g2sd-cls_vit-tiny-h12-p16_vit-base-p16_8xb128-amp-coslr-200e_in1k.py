# ViT-Ti with 12 heads after the generic stage.
_base_ = [
    '../_base_/models/g2sd-cls_vit-base.py',
    '../_base_/datasets/in1k_mae-finetune224.py',
    '../_base_/schedules/adamw-layer-decay_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(
        model_name='vit_tiny_patch16_224_dist_token',
        num_heads=12,
        checkpoint='work_dirs/g2sd_vit-tiny-h12-p16_vit-base-p16_8xb256-accum2-amp-coslr-300e_in1k/epoch_300.pth'),
)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(lr=4e-3))
param_scheduler = dict(warmup=5, eta_min_ratio=2.5e-4)
train_cfg = dict(max_epochs=200)
auto_scale_lr = dict(base_batch_size=1024)
