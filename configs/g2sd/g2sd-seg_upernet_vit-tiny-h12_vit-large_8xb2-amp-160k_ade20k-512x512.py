# Segmentation stage, the variant of ViT-Ti with 12 heads, under ViT-L.
_base_ = './g2sd-seg_upernet_vit-tiny_vit-large_8xb2-amp-160k_ade20k-512x512.py'

model = dict(
    student=dict(
        backbone=dict(
            num_heads=12,
            checkpoint='work_dirs/g2sd_vit-tiny-h12-p16_vit-base-p16_8xb256-accum2-amp-coslr-300e_in1k/epoch_300.pth')))
