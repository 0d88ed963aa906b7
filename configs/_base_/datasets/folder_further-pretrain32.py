# The same for a laptop: the training images of the small folder at 32 pixels.
_base_ = './folder_further-pretrain224.py'

train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='mmpretrain.Resize', scale=(32, 32), backend='pillow', interpolation='bilinear'),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='data/folder/train', pipeline=train_pipeline),
)
