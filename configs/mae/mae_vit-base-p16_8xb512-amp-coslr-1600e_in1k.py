# ViT-B as released, twice as long.
_base_ = './mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py'

train_cfg = dict(max_epochs=1600)
