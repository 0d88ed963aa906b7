# A folder of images without labels at 32 pixels, augmented as masked autoencoders are.
_base_ = './in1k_mae-pretrain224.py'

train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(
        type='mmpretrain.RandomResizedCrop',
        scale=32,
        crop_ratio_range=(0.2, 1.0),
        backend='pillow',
        interpolation='bicubic'),
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='vfd.ImageFolderDataset',
        data_root='data/folder/unlabelled',
        pipeline=train_pipeline),
)
