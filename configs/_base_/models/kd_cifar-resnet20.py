# ResNet20 under a CIFAR ResNet, plain logits with the usual weights; each config names the teacher.
model = dict(
    type='vfd.KD',
    student=dict(type='mmpretrain.TimmClassifier', model_name='cifar_resnet20', num_classes=100),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='cifar_resnet56', num_classes=100),
        checkpoint='checkpoints/resnet56_cifar100.pth'),
    ce_weight=0.1,
    kd_weight=0.9,
    temperature=4.0,
)
