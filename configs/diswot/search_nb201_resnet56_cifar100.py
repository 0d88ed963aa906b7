# Cells of NAS-Bench-201 under 100 M multiply-accumulates for ResNet56, by aging evolution (population 36, tournament
# 8), compared with the accuracies of the benchmark on CIFAR-100.
_base_ = './diswot_resnet20_resnet56_1xb64-steplr-240e_cifar100.py'

search = dict(
    space=dict(type='vfd.NASBench201Space', num_classes=100),
    scorers=['sum', 'nwot'],
    searcher=dict(type='vfd.AgingEvolution', budget=300, population=36, tournament=8),
    limits=dict(flops=100e6),
    init='gaussian',
    seeds=3,
    accuracy=dict(file='tests/golden/data/diswot/nb201_accuracy.npz', column='cifar100'),
)
