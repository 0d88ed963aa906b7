# MobileNetV1, first stage: 5 M images, no labels, from scratch. Published by the authors: 77.65 % top-1.
_base_ = [
    '../_base_/models/ssld_teacher-resnet50-vd.py',
    '../_base_/datasets/in5m_paddle-crop224.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='mobilenetv1_100'),
)
train_dataloader = dict(batch_size=512)
optim_wrapper = dict(optimizer=dict(lr=1.6, weight_decay=3e-5))
train_cfg = dict(max_epochs=360)
auto_scale_lr = dict(base_batch_size=4096)
