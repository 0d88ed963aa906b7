# As the published probe, but for the gradient loss, which the released code computes along the wrong axes.
_base_ = './_base_/linear-depth_dinov2-vit-base-p14.py'
