# Flickr30k's photos, without captions, for DINOv2: short side 518, a square crop of the long side, no augmentation.
data_preprocessor = dict(
    type='vfd.ClsDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=518, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.RandomCrop', crop_size=518),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='vfd.ImageFolderDataset', data_root='data/flickr30k', pipeline=train_pipeline),
)
