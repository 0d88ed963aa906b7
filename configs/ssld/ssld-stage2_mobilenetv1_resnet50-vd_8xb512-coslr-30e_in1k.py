# MobileNetV1, second stage: ImageNet-1k, no labels, from the first stage's student. Published by the authors:
# 77.89 % top-1.
_base_ = [
    '../_base_/models/ssld_teacher-resnet50-vd.py',
    '../_base_/datasets/in1k_paddle-crop224.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='mobilenetv1_100'),
)
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(optimizer=dict(lr=0.016, weight_decay=3e-5))
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=4096)
# The student of the first stage.
load_from = 'work_dirs/ssld-stage1_mobilenetv1_resnet50-vd_8xb512-coslr-360e_in5m/epoch_360.pth'
