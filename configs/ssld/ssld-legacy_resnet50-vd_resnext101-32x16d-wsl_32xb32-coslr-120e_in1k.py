# ResNet50_vd as in the first release of the code: its epsilon, one stage on ImageNet-1k. The split of the
# batch over GPUs is [ours].
_base_ = [
    '../_base_/models/ssld_teacher-resnext101-32x16d-wsl.py',
    '../_base_/datasets/in1k_paddle-crop224.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='resnet50d'),
    distill_loss=dict(mode='js_legacy'),
)
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(lr=0.4, weight_decay=7e-5))
train_cfg = dict(max_epochs=120)
auto_scale_lr = dict(base_batch_size=1024)
