# All 64 CIFAR ResNets for ResNet110, scored on the images of the quickstart (DATA=cifar10 make quickstart prepares them)
# and compared with the accuracies that the authors published for CIFAR-100.
_base_ = [
    '../_base_/models/diswot_resnet20.py',
    '../quickstart/_base_/data_cifar10.py',
    '../_base_/schedules/sgd_240e_cifar-distillation.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(num_classes=10),
    teacher=dict(
        source=dict(model_name='cifar_resnet110', num_classes=10), checkpoint='checkpoints/resnet110_cifar10.pth'),
)
data_preprocessor = dict(
    type='vfd.ClsDataPreprocessor',
    num_classes=10,
    mean=[129.3105, 124.1085, 112.404],
    std=[68.2125, 65.4075, 70.4055],
    to_rgb=True,
)
train_dataloader = dict(
    sampler=dict(type='DefaultSampler', shuffle=True), dataset=dict(data_prefix='labelled', with_label=True))
baseline = None

search = dict(
    space=dict(type='vfd.CifarResNetSpace', depths=[1, 3, 5, 7], num_classes=10),
    scorers=['sum', 'semantic', 'relation', 'rank', 'nwot'],
    searcher=dict(type='vfd.Exhaustive'),
    seeds=3,
    accuracy=dict(file='tests/golden/data/diswot/s0_resnet_cifar100.csv', column='distilled_top1'),
)
