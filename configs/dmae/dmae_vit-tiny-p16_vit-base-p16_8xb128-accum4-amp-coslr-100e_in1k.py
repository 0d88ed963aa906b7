# ViT-Ti under ViT-B. [ours]: the blocks of the ViT-S setting; nothing is published for this pair.
_base_ = [
    '../_base_/models/dmae_vit-small_vit-base.py',
    '../_base_/datasets/in1k_mae-pretrain224.py',
    '../_base_/schedules/adamw-mae_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(student=dict(arch='tiny'))
optim_wrapper = dict(type='AmpOptimWrapper', accumulative_counts=4)
param_scheduler = dict(hold=4)
auto_scale_lr = dict(base_batch_size=4096)
