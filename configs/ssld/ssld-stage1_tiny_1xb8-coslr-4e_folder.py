# The first stage on a laptop: a folder data set with unlabelled images, tiny networks, CPU.
_base_ = [
    '../_base_/models/ssld_tiny.py',
    '../_base_/datasets/folder-unlabelled_paddle-crop64.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=1e-5))
param_scheduler = dict(warmup=1)
train_cfg = dict(max_epochs=4, val_interval=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4))
auto_scale_lr = dict(base_batch_size=8)
