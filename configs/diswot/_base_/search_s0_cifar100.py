# All 64 CIFAR ResNets, compared with the accuracies that the authors published for CIFAR-100 after distillation; the
# winner's config trains it with soft labels and relations.
search = dict(
    space=dict(type='vfd.CifarResNetSpace', depths=[1, 3, 5, 7], num_classes=100),
    scorers=['sum', 'semantic', 'relation', 'nwot'],
    searcher=dict(type='vfd.Exhaustive'),
    seeds=3,
    accuracy=dict(file='tests/golden/data/diswot/s0_resnet_cifar100.csv', column='distilled_top1'),
)
