# ViT-S under ViT-B with the cheap decoder of two blocks.
_base_ = [
    '../_base_/models/dmae_vit-small_vit-base.py',
    '../_base_/datasets/in1k_mae-pretrain224.py',
    '../_base_/schedules/adamw-mae_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(student=dict(decoder_depth=2))
optim_wrapper = dict(type='AmpOptimWrapper', accumulative_counts=4)
param_scheduler = dict(hold=4)
auto_scale_lr = dict(base_batch_size=4096)
