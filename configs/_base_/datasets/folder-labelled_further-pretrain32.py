# The same for a laptop: the small folder at 32 pixels.
_base_ = './folder-labelled_further-pretrain224.py'

resize = dict(type='mmpretrain.Resize', scale=(32, 32), backend='pillow', interpolation='bilinear')
train_pipeline = [
    dict(type='vfd.LoadImage'),
    resize,
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.PackInputs'),
]
test_pipeline = [dict(type='vfd.LoadImage'), resize, dict(type='mmpretrain.PackInputs')]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='data/folder', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    dataset=dict(data_root='data/folder', data_prefix='val', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
