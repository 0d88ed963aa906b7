# The probe of DINOv2 on the projected map of the distilled CLIP ViT-B/16.
_base_ = './_base_/linear-depth_dinov2-vit-base-p14.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='vfd.RegisterCLIP',
        model_name='ViT-B-16-quickgelu',
        tag='openai',
        num_registers=16,
        img_size=448,
        head='maskclip',
        checkpoint='work_dirs/ph-reg_clip-vit-base-p16_4xb16-amp-explr-100e_flickr30k-448px/epoch_100.pth',
    ),
    in_channels=512,
    data_preprocessor=dict(
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        size_divisor=16,
        test_cfg=dict(size_divisor=16),
    ),
)
