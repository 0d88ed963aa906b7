# ImageNet-1k from stored labels: 4 crops of an image at 224 pixels, nothing but the stored box and flip. A GPU loads
# 32 images, so 8 GPUs train on batches of 8 x 32 x 4 = 1024 samples.
data_preprocessor = dict(
    type='vfd.ClsDataPreprocessor',
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

test_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=256, edge='short', backend='pillow'),
    dict(type='mmpretrain.CenterCrop', crop_size=224),
    dict(type='mmpretrain.PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='vfd.crop_major_collate'),
    dataset=dict(
        type='vfd.StoredCropDataset',
        store='work_dirs/relabel_efficientnet-l2-475_crops500-k5_in1k',
        data_root='data/imagenet/train',
        num_crops=4,
        crop_size=224),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmpretrain.ImageNet', data_root='data/imagenet', split='val', pipeline=test_pipeline),
)
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

# The supervised baseline: as many crops in a batch, each of another image, and true labels.
baseline = dict(
    train_dataloader=dict(
        _delete_=True,
        batch_size=128,
        num_workers=8,
        persistent_workers=True,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='mmpretrain.ImageNet',
            data_root='data/imagenet',
            split='train',
            pipeline=[
                dict(type='vfd.LoadImage'),
                dict(type='mmpretrain.RandomResizedCrop', scale=224, backend='pillow'),
                dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
                dict(type='mmpretrain.PackInputs'),
            ])),
)
