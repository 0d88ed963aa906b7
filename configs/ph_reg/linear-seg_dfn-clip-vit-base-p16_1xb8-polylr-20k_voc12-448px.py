# The probe of CLIP on DFN's weights, distilled.
_base_ = './linear-seg_clip-vit-base-p16_1xb8-polylr-20k_voc12-448px.py'

model = dict(
    backbone=dict(
        tag='dfn2b',
        checkpoint='work_dirs/ph-reg_dfn-clip-vit-base-p16_4xb16-amp-explr-100e_flickr30k-448px/epoch_100.pth',
    )
)
