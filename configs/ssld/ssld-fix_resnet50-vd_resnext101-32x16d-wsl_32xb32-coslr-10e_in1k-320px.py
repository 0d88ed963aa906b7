# Fix_ResNet50_vd_ssld_v2: the classifier alone is tuned at 320 pixels, on images prepared as for testing; all
# else is frozen, batch-norm statistics included. Published by the authors: 84.0 % top-1 at 320 pixels.
# Loss, length, learning rate and batch of this step are not published; those below are ours [ours].
_base_ = [
    '../_base_/models/ssld_teacher-resnext101-32x16d-wsl.py',
    '../_base_/datasets/in1k_paddle-crop224.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='resnet50d'),
    train_only=['fc.'],
)
pipeline_320px = [
    dict(type='vfd.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=366, edge='short'),  # 320 / 224 * 256
    dict(type='mmpretrain.CenterCrop', crop_size=320),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=pipeline_320px))
val_dataloader = dict(dataset=dict(pipeline=pipeline_320px))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.004, weight_decay=2e-5))
param_scheduler = dict(warmup=1)
train_cfg = dict(max_epochs=10, val_interval=1)
auto_scale_lr = dict(base_batch_size=1024)
# The student of the second stage.
load_from = 'work_dirs/ssld-v2-stage2_resnet50-vd_resnext101-32x16d-wsl_32xb32-coslr-60e_in1k/epoch_60.pth'
