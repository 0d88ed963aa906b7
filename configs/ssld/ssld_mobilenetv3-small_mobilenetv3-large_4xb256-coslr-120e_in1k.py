# MobileNetV3_small from MobileNetV3_large, one stage on ImageNet-1k with soft cross-entropy.
_base_ = [
    '../_base_/models/ssld_teacher-mobilenetv3-large.py',
    '../_base_/datasets/in1k_paddle-crop224.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='mobilenetv3_small_100'),
)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=0.65, weight_decay=1e-5))
train_cfg = dict(max_epochs=120)
auto_scale_lr = dict(base_batch_size=1024)
