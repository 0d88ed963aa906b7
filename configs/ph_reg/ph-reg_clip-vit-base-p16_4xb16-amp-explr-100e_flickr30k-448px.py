# The published setting for CLIP. Published is a batch of 16; that this is for each of four processes, as DINOv2's 8
# is, is our reading.
_base_ = [
    '../_base_/models/ph-reg_clip-vit-base.py',
    '../_base_/datasets/folder_ph-reg448.py',
    '../_base_/schedules/adamw-ph-reg_exponential.py',
]

optim_wrapper = dict(optimizer=dict(lr=3e-4))
param_scheduler = dict(eta_min_ratio=1e-5 / 3e-4)
auto_scale_lr = dict(base_batch_size=64)
