# The folder data set with the unlabelled images in its training part.
_base_ = './folder_paddle-crop64.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        ignore_keys=['classes'],
        datasets=[
            dict(
                type='mmpretrain.CustomDataset',
                data_root='data/folder',
                data_prefix='train',
                pipeline=[*_base_.train_pipeline[:-1], dict(type='vfd.DropLabels'), _base_.train_pipeline[-1]]),
            dict(
                type='vfd.ImageFolderDataset',
                data_root='data/folder/unlabelled',
                pipeline=_base_.train_pipeline),
        ],
    ),
)

# The supervised baseline (--baseline) is trained on the labelled part alone, for as many steps.
baseline = dict(
    train_dataloader=dict(
        dataset=dict(
            _delete_=True,
            type='mmpretrain.CustomDataset',
            data_root='data/folder',
            data_prefix='train',
            pipeline=_base_.train_pipeline),
    ),
)
