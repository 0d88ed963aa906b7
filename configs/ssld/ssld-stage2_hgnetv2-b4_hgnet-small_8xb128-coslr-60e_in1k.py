# PPHGNetV2_B4, second stage: ImageNet-1k, no labels, from the first stage's student. Published by the
# authors: 83.57 % top-1.
# The published batch is 128 per GPU; the number of GPUs is not published, eight is ours [ours].
_base_ = [
    '../_base_/models/ssld_teacher-hgnet-small.py',
    '../_base_/datasets/in1k_paddle-crop224_randaug.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='hgnetv2_b4'),
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=0.005, weight_decay=2e-5))
train_cfg = dict(max_epochs=60)
auto_scale_lr = dict(base_batch_size=1024)
# The student of the first stage.
load_from = 'work_dirs/ssld-stage1_hgnetv2-b4_hgnet-small_8xb128-coslr-360e_in5m/epoch_360.pth'
