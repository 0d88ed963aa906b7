_base_ = ['./_base_/linear-seg_clip-vit-base-p16.py', './_base_/linear-seg_ade20k-40k.py']

model = dict(decode_head=dict(num_classes=150))
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
