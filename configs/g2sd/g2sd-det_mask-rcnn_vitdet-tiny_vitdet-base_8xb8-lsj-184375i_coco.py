# Detection stage, ViT-Ti (three heads) under ViTDet-B, the released setting. The backbone starts from the generic stage.
_base_ = [
    '../_base_/models/g2sd-det_mask-rcnn_vitdet.py',
    '../_base_/datasets/coco-instance_lsj1024.py',
    '../_base_/schedules/adamw-vitdet_184375i.py',
]

model = dict(
    student=dict(
        backbone=dict(
            arch='tiny',
            checkpoint='work_dirs/g2sd_vit-tiny-p16_vit-base-p16_8xb256-accum2-amp-coslr-300e_in1k/epoch_300.pth'),
        neck=dict(in_channels=192)))
