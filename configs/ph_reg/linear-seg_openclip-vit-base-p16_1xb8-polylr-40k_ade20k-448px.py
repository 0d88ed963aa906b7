# The probe of CLIP on OpenCLIP's weights, which have the exact GELU, distilled.
_base_ = './linear-seg_clip-vit-base-p16_1xb8-polylr-40k_ade20k-448px.py'

model = dict(
    backbone=dict(
        model_name='ViT-B-16',
        tag='laion2b_s34b_b88k',
        checkpoint='work_dirs/ph-reg_openclip-vit-base-p16_4xb16-amp-explr-100e_flickr30k-448px/epoch_100.pth',
    )
)
