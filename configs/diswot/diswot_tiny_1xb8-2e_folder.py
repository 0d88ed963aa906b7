# The distillers on a laptop: 64-pixel images of a folder, a RANDOM teacher: everything runs, nothing useful is trained.
_base_ = [
    '../_base_/models/diswot_resnet20.py',
    '../_base_/datasets/folder_paddle-crop64.py',
    '../_base_/schedules/sgd_240e_cifar-distillation.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(blocks=[1, 1, 1], num_classes=10),
    teacher=dict(source=dict(model_name='cifar_resnet8', num_classes=10), checkpoint='random'),
)
param_scheduler = dict(milestones=[1])
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
auto_scale_lr = dict(base_batch_size=8)
