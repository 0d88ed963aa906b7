# MobileNetV2, first stage: 5 M images, no labels, from scratch. Published by the authors: 76.34 % top-1.
_base_ = [
    '../_base_/models/ssld_teacher-resnet50-vd.py',
    '../_base_/datasets/in5m_paddle-crop224.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='mobilenetv2_100'),
)
train_dataloader = dict(batch_size=384)
optim_wrapper = dict(optimizer=dict(lr=0.54, weight_decay=1e-5))
train_cfg = dict(max_epochs=360)
auto_scale_lr = dict(base_batch_size=3072)
