# A folder a class under data/folder/{train,val}; 4 stored crops of an image at 32 pixels. `vfd label` with
# configs/ferkd/relabel_tiny_crops12-k5_folder.py makes the labels.
data_preprocessor = dict(
    type='vfd.ClsDataPreprocessor',
    num_classes=10,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
test_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=36, edge='short', backend='pillow'),
    dict(type='mmpretrain.CenterCrop', crop_size=32),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='vfd.crop_major_collate'),
    dataset=dict(
        type='vfd.StoredCropDataset',
        store='work_dirs/relabel_tiny_crops12-k5_folder',
        data_root='data/folder/train',
        num_crops=4,
        crop_size=32),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmpretrain.CustomDataset', data_root='data/folder', data_prefix='val', pipeline=test_pipeline),
)
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, ))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

# The supervised baseline: as many crops in a batch, each of another image, and true labels.
baseline = dict(
    train_dataloader=dict(
        _delete_=True,
        batch_size=8,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='mmpretrain.CustomDataset',
            data_root='data/folder',
            data_prefix='train',
            pipeline=[
                dict(type='vfd.LoadImage'),
                dict(type='mmpretrain.RandomResizedCrop', scale=32, backend='pillow'),
                dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
                dict(type='mmpretrain.PackInputs'),
            ])),
)
