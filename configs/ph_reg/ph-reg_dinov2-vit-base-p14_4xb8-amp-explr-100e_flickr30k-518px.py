# The published setting for DINOv2. The released weights that were evaluated are those of epoch 30: see the config "30e".
_base_ = [
    '../_base_/models/ph-reg_dinov2-vit-base.py',
    '../_base_/datasets/folder_ph-reg518.py',
    '../_base_/schedules/adamw-ph-reg_exponential.py',
]

auto_scale_lr = dict(base_batch_size=32)
