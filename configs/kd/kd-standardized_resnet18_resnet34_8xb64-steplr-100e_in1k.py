# Standardised logits of torchvision's ResNet34 for ResNet18 on ImageNet-1k. The split of the batch over GPUs and the
# image preparation (torchvision's random crop and flip) are [ours].
_base_ = [
    '../_base_/datasets/in1k_paddle-crop224.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='vfd.KD',
    student=dict(type='mmpretrain.TimmClassifier', model_name='resnet18', num_classes=1000),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='resnet34.tv_in1k', num_classes=1000),
        checkpoint='pretrained'),
    ce_weight=1.0,
    kd_weight=9.0,
    temperature=2.0,
    standardize=True,
)
train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='mmpretrain.RandomResizedCrop', scale=224),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=512)
