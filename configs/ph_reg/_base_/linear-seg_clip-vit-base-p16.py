# The probe of DINOv2 on the projected map of the distilled CLIP ViT-B/16: 448 px and CLIP's normalisation.
_base_ = './linear-seg_dinov2-vit-base-p14.py'

crop_size = (448, 448)
model = dict(
    backbone=dict(
        _delete_=True,
        type='vfd.RegisterCLIP',
        model_name='ViT-B-16-quickgelu',
        tag='openai',
        num_registers=16,
        img_size=crop_size,
        head='maskclip',
        checkpoint='work_dirs/ph-reg_clip-vit-base-p16_4xb16-amp-explr-100e_flickr30k-448px/epoch_100.pth',
    ),
    decode_head=dict(in_channels=512),
    test_cfg=dict(crop_size=crop_size),
    data_preprocessor=dict(
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        size=crop_size,
        test_cfg=dict(size=crop_size),
    ),
)
train_pipeline = (
    _base_.train_pipeline[:2]
    + [
        dict(type='RandomResize', scale=(2048, 448), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    ]
    + _base_.train_pipeline[4:]
)
test_pipeline = (
    _base_.test_pipeline[:1]
    + [dict(type='Resize', scale=(2048, 448), keep_ratio=True)]
    + _base_.test_pipeline[2:]
)
