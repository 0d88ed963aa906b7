# Segmentation stage, ViT-S under ViT-B, the released setting. The backbone starts from the generic stage.
_base_ = [
    '../_base_/models/g2sd-seg_upernet_vit.py',
    '../_base_/datasets/ade20k-512x512_upernet.py',
    '../_base_/schedules/adamw-upernet_160k.py',
]

model = dict(
    student=dict(
        backbone=dict(
            checkpoint='work_dirs/g2sd_vit-small-p16_vit-base-p16_8xb256-accum2-amp-coslr-300e_in1k/epoch_300.pth')))
