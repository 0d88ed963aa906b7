# MAE on a laptop: a folder of unlabelled images, a tiny network, CPU. What further pre-training starts from.
_base_ = [
    '../_base_/models/mae_tiny.py',
    '../_base_/datasets/folder_mae-pretrain32.py',
    '../_base_/schedules/adamw-mae_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(warmup=1)
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
auto_scale_lr = dict(base_batch_size=8)
