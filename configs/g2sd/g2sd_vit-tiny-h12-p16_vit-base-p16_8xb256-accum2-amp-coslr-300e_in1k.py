# Generic stage, the variant of ViT-Ti with 12 heads, under ViT-B.
_base_ = [
    '../_base_/models/g2sd_vit-small_vit-base.py',
    '../_base_/datasets/in1k_mae-pretrain224.py',
    '../_base_/schedules/adamw-mae_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(arch='tiny', decoder_embed_dim=128, decoder_num_heads=4, num_heads=12),
)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(type='AmpOptimWrapper', accumulative_counts=2)
param_scheduler = dict(warmup=10, eta_min_ratio=2.5e-6 / 2.4e-3, hold=2)
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=4096)
