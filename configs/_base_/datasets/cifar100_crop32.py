# CIFAR-100 in the usual form: pad 4, crop 32, flip; batches of 64. mmpretrain fetches it when data/cifar100 is empty.
# Its images come in RGB order; two steps put them into the BGR order that vfd's teachers expect of every loader.
data_preprocessor = dict(
    type='vfd.ClsDataPreprocessor',
    num_classes=100,
    mean=[129.3105, 124.1085, 112.404],
    std=[68.2125, 65.4075, 70.4055],
    to_rgb=True,
)
to_bgr = [
    dict(type='mmpretrain.NumpyToPIL', to_rgb=False),
    dict(type='mmpretrain.PILToNumpy', to_bgr=True),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmpretrain.CIFAR100',
        data_root='data/cifar100',
        split='train',
        pipeline=[
            *to_bgr,
            dict(type='mmpretrain.RandomCrop', crop_size=32, padding=4),
            dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='mmpretrain.PackInputs'),
        ]),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmpretrain.CIFAR100',
        data_root='data/cifar100',
        split='test',
        pipeline=[*to_bgr, dict(type='mmpretrain.PackInputs')]),
)
val_evaluator = dict(type='mmpretrain.Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
