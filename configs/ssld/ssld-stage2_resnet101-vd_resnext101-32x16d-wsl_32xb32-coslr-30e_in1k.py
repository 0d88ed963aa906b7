# ResNet101_vd, second stage: ImageNet-1k, no labels, from the first stage's student. Published by the
# authors: 83.73 % top-1.
_base_ = [
    '../_base_/models/ssld_teacher-resnext101-32x16d-wsl.py',
    '../_base_/datasets/in1k_paddle-crop224.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='resnet101d'),
)
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(lr=0.004, weight_decay=7e-5))
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=1024)
# The student of the first stage.
load_from = 'work_dirs/ssld-stage1_resnet101-vd_resnext101-32x16d-wsl_32xb32-coslr-360e_in5m/epoch_360.pth'
