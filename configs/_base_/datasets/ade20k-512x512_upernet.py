# ADE20K as mmseg prepares it: resized by 0.5 to 2.0, cropped to 512, flipped, photometric distortion. Only the loader is
# vfd's, which finds truncated files.
_base_ = 'mmseg::_base_/datasets/ade20k.py'

train_pipeline = [dict(type='vfd.LoadImage')] + _base_.train_pipeline[1:]
test_pipeline = [dict(type='vfd.LoadImage')] + _base_.test_pipeline[1:]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
