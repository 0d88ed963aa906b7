# The published setting on DFN's weights, which have the quick GELU, as their own config says.
_base_ = './ph-reg_clip-vit-base-p16_4xb16-amp-explr-100e_flickr30k-448px.py'

model = dict(teacher=dict(source=dict(network=dict(tag='dfn2b'))))
