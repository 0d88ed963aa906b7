# ResNet50_vd, first stage: 5 M images, no labels, from scratch. Published by the authors: 82.07 % top-1.
_base_ = [
    '../_base_/models/ssld_teacher-resnext101-32x16d-wsl.py',
    '../_base_/datasets/in5m_paddle-crop224.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='resnet50d'),
)
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(lr=0.4, weight_decay=7e-5))
train_cfg = dict(max_epochs=360)
auto_scale_lr = dict(base_batch_size=1024)
