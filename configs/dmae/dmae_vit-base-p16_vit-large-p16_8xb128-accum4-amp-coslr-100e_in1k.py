# The published setting: 100 epochs, 75 % of the patches hidden. Published by the authors: 84.0 % after fine-tuning.
_base_ = [
    '../_base_/models/dmae_vit-base_vit-large.py',
    '../_base_/datasets/in1k_mae-pretrain224.py',
    '../_base_/schedules/adamw-mae_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(type='AmpOptimWrapper', accumulative_counts=4)
param_scheduler = dict(hold=4)
auto_scale_lr = dict(base_batch_size=4096)
