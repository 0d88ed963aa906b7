# A folder of images without labels at 224 pixels, and no augmentation: every image looks the same every time.
data_preprocessor = dict(
    type='vfd.SelfSupDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='mmpretrain.Resize', scale=(224, 224), backend='pillow', interpolation='bilinear'),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='vfd.ImageFolderDataset', data_root='data/target/train', pipeline=train_pipeline),
)
