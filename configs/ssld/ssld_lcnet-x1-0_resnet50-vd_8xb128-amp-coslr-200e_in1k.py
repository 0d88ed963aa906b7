# PPLCNet_x1_0, one stage on ImageNet-1k in mixed precision. Published by the authors: 74.4 % top-1.
# The split of the batch over GPUs is [ours].
_base_ = [
    '../_base_/models/ssld_teacher-resnet50-vd.py',
    '../_base_/datasets/in1k_paddle-crop224.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='lcnet_100'),
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(type='AmpOptimWrapper', optimizer=dict(lr=0.4, weight_decay=1e-5))
train_cfg = dict(max_epochs=200)
auto_scale_lr = dict(base_batch_size=1024)
