# Detection stage, the variant of ViT-Ti with 12 heads, under ViTDet-B.
_base_ = './g2sd-det_mask-rcnn_vitdet-tiny_vitdet-base_8xb8-lsj-184375i_coco.py'

model = dict(
    student=dict(
        backbone=dict(
            num_heads=12,
            checkpoint='work_dirs/g2sd_vit-tiny-h12-p16_vit-base-p16_8xb256-accum2-amp-coslr-300e_in1k/epoch_300.pth')))
