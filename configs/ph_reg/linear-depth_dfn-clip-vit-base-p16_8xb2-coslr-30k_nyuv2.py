# The probe of CLIP on DFN's weights, distilled.
_base_ = './linear-depth_clip-vit-base-p16_8xb2-coslr-30k_nyuv2.py'

model = dict(
    backbone=dict(
        tag='dfn2b',
        checkpoint='work_dirs/ph-reg_dfn-clip-vit-base-p16_4xb16-amp-explr-100e_flickr30k-448px/epoch_100.pth',
    )
)
