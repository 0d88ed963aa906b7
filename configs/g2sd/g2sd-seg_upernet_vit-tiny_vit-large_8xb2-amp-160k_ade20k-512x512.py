# Segmentation stage, ViT-Ti (three heads) under ViT-L, the released setting. The backbone starts from the generic stage.
_base_ = [
    '../_base_/models/g2sd-seg_upernet_vit_teacher-large.py',
    '../_base_/datasets/ade20k-512x512_upernet.py',
    '../_base_/schedules/adamw-upernet_160k.py',
]

model = dict(
    student=dict(
        backbone=dict(
            arch='tiny',
            checkpoint='work_dirs/g2sd_vit-tiny-p16_vit-base-p16_8xb256-accum2-amp-coslr-300e_in1k/epoch_300.pth'),
        decode_head=dict(in_channels=[192, 192, 192, 192], channels=192),
        auxiliary_head=dict(in_channels=192)))
