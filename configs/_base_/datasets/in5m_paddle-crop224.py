# The 5 M images of SSLD's first stage: ImageNet-1k and about 4 M mined, unlabelled images (list: one path a line,
# relative to data/imagenet22k; made by `vfd mine`). The authors' own list is not public.
_base_ = './in1k_paddle-crop224.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        ignore_keys=['classes'],
        datasets=[
            dict(
                type='mmpretrain.ImageNet',
                data_root='data/imagenet',
                split='train',
                pipeline=[*_base_.train_pipeline[:-1], dict(type='vfd.DropLabels'), _base_.train_pipeline[-1]]),
            dict(
                type='vfd.ImageListDataset',
                ann_file='lists/mined_4m.txt',
                data_root='data',
                data_prefix='imagenet22k',
                pipeline=_base_.train_pipeline),
        ],
    ),
)
