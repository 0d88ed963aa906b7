# FKD's script for CNNs: a pass of 4 crops counts as 4 epochs, cosine by pass to 0, no warm-up, the last 4 epochs with
# single crops. lr is that of the published command; the paper's table says 0.1 x batch / 512 = 0.2.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = dict(type='vfd.WarmupCosineByEpoch')
train_cfg = dict(type='vfd.MultiCropEpochLoop', max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# images of a batch, each with 4 crops
auto_scale_lr = dict(base_batch_size=256)
