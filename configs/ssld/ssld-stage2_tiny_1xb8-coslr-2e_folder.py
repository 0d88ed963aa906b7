# The second stage on a laptop: the training folder alone, from the first stage's student, a hundredth of its rate.
_base_ = [
    '../_base_/models/ssld_tiny.py',
    '../_base_/datasets/folder_paddle-crop64.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=0.001, weight_decay=1e-5))
param_scheduler = dict(warmup=1)
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
auto_scale_lr = dict(base_batch_size=8)
# The student of the first stage.
load_from = 'work_dirs/ssld-stage1_tiny_1xb8-coslr-4e_folder/epoch_4.pth'
