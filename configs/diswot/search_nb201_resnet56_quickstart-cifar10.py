# 60 random cells of NAS-Bench-201 for ResNet56 on the images of the quickstart, with the libraries' own initialisation,
# compared with the benchmark's accuracies on CIFAR-10.
_base_ = './search_s0_resnet110_quickstart-cifar10.py'

model = dict(
    teacher=dict(source=dict(model_name='cifar_resnet56'), checkpoint='checkpoints/resnet56_cifar10.pth'),
)
search = dict(
    space=dict(_delete_=True, type='vfd.NASBench201Space', num_classes=10),
    searcher=dict(_delete_=True, type='vfd.RandomSearch', budget=60),
    init='default',
    accuracy=dict(file='tests/golden/data/diswot/nb201_accuracy.npz', column='cifar10'),
)
