# What `vfd quickstart` prepares: unlabelled/*.png, labelled/<class>/*.png, test/<class>/*.png.
data_root = 'data/quickstart/cifar10'
train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='RandomCrop', crop_size=32, padding=2),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='Resize', scale=(32, 32)),  # a no-op but for images of your own
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='unlabelled',
        with_label=False,
        pipeline=train_pipeline),
)
test_dataloader = dict(
    batch_size=250,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='test',
        pipeline=test_pipeline),
)
val_dataloader = test_dataloader
test_evaluator = dict(type='Accuracy', topk=(1, ))
val_evaluator = test_evaluator

# The supervised baseline sees the few images that have a label.
baseline = dict(train_dataloader=dict(dataset=dict(data_prefix='labelled', with_label=True)))
