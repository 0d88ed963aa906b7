# Stage 1 on a laptop, from what mae_tiny gave.
_base_ = [
    '../_base_/models/mae_tiny.py',
    '../_base_/datasets/folder_further-pretrain32.py',
    '../_base_/schedules/adamw-further-pretrain_linear-20k.py',
]

model = dict(student=dict(checkpoint='work_dirs/mae_tiny_1xb8-coslr-2e_folder/epoch_2.pth'))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_iters=12)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=6))
auto_scale_lr = dict(base_batch_size=8)
