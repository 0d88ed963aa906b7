# Labels for `vfd quickstart ferkd`: 10 crops of every labelled image, by EfficientNet-Lite0 with a classifier that was
# fitted to the same labels. Crops cover at least a quarter of the 32 x 32 pixels.
default_scope = 'mmpretrain'

model = dict(
    type='vfd.RegionLabeller',
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='tf_efficientnet_lite0', num_classes=10),
        checkpoint='work_dirs/quickstart_ferkd/cifar10/teacher.safetensors',
        input_size=112),
    crops=10,
    label_type='marginal_smoothing_k5',
    scale=(0.25, 1.0),
    chunk=10,
)
train_dataloader = dict(
    num_workers=0,
    dataset=dict(
        type='mmpretrain.CustomDataset', data_root='data/quickstart_ferkd/cifar10', data_prefix='labelled'),
)
