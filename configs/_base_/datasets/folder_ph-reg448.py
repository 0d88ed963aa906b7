# The same for CLIP: 448 pixels, CLIP's mean and standard deviation.
_base_ = './folder_ph-reg518.py'

data_preprocessor = dict(
    mean=[122.7709383, 116.7460125, 104.09373615], std=[68.5005327, 66.6321579, 70.32316305]
)
train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=448, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.RandomCrop', crop_size=448),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
