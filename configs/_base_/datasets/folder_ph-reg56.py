# For a laptop: a folder of photos at 56 pixels.
_base_ = './folder_ph-reg518.py'

train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=56, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.RandomCrop', crop_size=56),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='data/folder/unlabelled', pipeline=train_pipeline),
)
