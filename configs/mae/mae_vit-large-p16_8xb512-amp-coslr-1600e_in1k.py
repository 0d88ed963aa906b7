# ViT-L as released.
_base_ = './mae_vit-base-p16_8xb512-amp-coslr-1600e_in1k.py'

model = dict(student=dict(arch='large'))
