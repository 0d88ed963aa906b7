# The published setting on OpenCLIP's weights, which have the exact GELU.
_base_ = './ph-reg_clip-vit-base-p16_4xb16-amp-explr-100e_flickr30k-448px.py'

model = dict(
    student=dict(model_name='ViT-B-16'),
    teacher=dict(source=dict(network=dict(model_name='ViT-B-16', tag='laion2b_s34b_b88k'))),
)
