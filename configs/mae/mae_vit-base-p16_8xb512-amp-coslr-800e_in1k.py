# ViT-B, the 800 epochs of the paper's ablations: 0.75 of the patches hidden, normalised pixels.
_base_ = [
    '../_base_/datasets/in1k_mae-pretrain224.py',
    '../_base_/schedules/adamw-mae_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='vfd.MAE',
    student=dict(type='vfd.MaskedAutoencoder', arch='base'),
    mask_ratio=0.75,
    norm_pix=True,
)
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(type='AmpOptimWrapper')
param_scheduler = dict(warmup=40)
train_cfg = dict(max_epochs=800)
auto_scale_lr = dict(base_batch_size=4096)
