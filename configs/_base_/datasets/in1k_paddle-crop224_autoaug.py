# ImageNet-1k at 224 pixels with AutoAugment after crop and flip: the augmentation of the "v2" recipe.
_base_ = './in1k_paddle-crop224.py'

train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='vfd.PaddleRandomCrop', crop_size=224, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.AutoAugment', policies='imagenet'),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
