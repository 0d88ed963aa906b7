# What the published tables were made with: the first 30 epochs of the schedule of 100.
_base_ = './ph-reg_dinov2-vit-base-p14_4xb8-amp-explr-100e_flickr30k-518px.py'

param_scheduler = dict(end=100)
train_cfg = dict(max_epochs=30)
