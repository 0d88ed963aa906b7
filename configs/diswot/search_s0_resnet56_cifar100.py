# All 64 CIFAR ResNets for ResNet56; the winner's config trains it with soft labels and relations.
_base_ = './diswot_resnet20_resnet56_1xb64-steplr-240e_cifar100.py'

search = dict(
    space=dict(type='vfd.CifarResNetSpace', depths=[1, 3, 5, 7], num_classes=100),
    scorers=['sum', 'semantic', 'relation', 'nwot'],
    searcher=dict(type='vfd.Exhaustive'),
    seeds=3,
)
