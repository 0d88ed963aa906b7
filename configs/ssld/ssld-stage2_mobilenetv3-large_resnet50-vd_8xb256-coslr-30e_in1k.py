# MobileNetV3_large, second stage: ImageNet-1k, no labels, from the first stage's student. Published by the
# authors: 78.96 % top-1.
_base_ = [
    '../_base_/models/ssld_teacher-resnet50-vd.py',
    '../_base_/datasets/in1k_paddle-crop224.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='mobilenetv3_large_100'),
)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=0.008, weight_decay=1e-5))
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=2048)
# The student of the first stage.
load_from = 'work_dirs/ssld-stage1_mobilenetv3-large_resnet50-vd_24xb240-coslr-360e_in5m/epoch_360.pth'
