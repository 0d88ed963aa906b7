# What the published numbers are trained with: the gradient loss along the first two axes, images and channels. With two
# images a process it is 0.
_base_ = './_base_/linear-depth_dinov2-vit-base-p14.py'

model = dict(legacy_bchw=True)
