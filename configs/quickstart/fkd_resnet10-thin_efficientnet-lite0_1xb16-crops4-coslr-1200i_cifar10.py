# Plain FKD on cifar10: 1,200 steps of 16 images with 4 stored crops each; `vfd quickstart ferkd` makes data and
# labels. The supervised baseline sees the same images in crops of the same distribution, with their class.
_base_ = [
    '_base_/student_resnet10-thin.py',
    '_base_/data_cifar10.py',
    '_base_/schedule_1200i.py',
]

model = dict(
    type='vfd.FerKD',
    student={{_base_.student}},
    data_preprocessor={{_base_.data_preprocessor}},
)
data_root = 'data/quickstart_ferkd/cifar10'
train_dataloader = dict(
    batch_size=16,
    collate_fn=dict(type='vfd.crop_major_collate'),
    dataset=dict(
        _delete_=True,
        type='vfd.StoredCropDataset',
        store='work_dirs/quickstart_ferkd/cifar10/labels',
        data_root=f'{data_root}/labelled',
        num_crops=4,
        crop_size=32),
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
baseline = dict(
    _delete_=True,
    train_dataloader=dict(
        batch_size=64,
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            _delete_=True,
            type='CustomDataset',
            data_root=data_root,
            data_prefix='labelled',
            pipeline=[
                dict(type='vfd.LoadImage'),
                dict(
                    type='RandomResizedCrop',
                    scale=32,
                    crop_ratio_range=(0.25, 1.0),
                    backend='pillow'),
                dict(type='RandomFlip', prob=0.5, direction='horizontal'),
                dict(type='PackInputs'),
            ])))
