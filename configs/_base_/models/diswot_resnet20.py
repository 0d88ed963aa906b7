# ResNet20 under a CIFAR ResNet; each config names the teacher. The student that a search finds takes ResNet20's place.
# DisWOT's weight of the relations is not published: 3000 is RepDistiller's for the relation of samples, 1 [project
# default] for the correlation of channels.
model = dict(
    type='vfd.DisWOT',
    student=dict(type='mmpretrain.TimmClassifier', model_name='cifar_resnet', blocks=[3, 3, 3], num_classes=100),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='cifar_resnet56', num_classes=100),
        checkpoint='checkpoints/resnet56_cifar100.pth'),
    ce_weight=0.1,
    kd_weight=0.9,
    temperature=4.0,
    relation_loss=dict(type='vfd.RelationLoss', loss_weight=3000.0),
    channel_loss=dict(type='vfd.ChannelCorrelationLoss', loss_weight=1.0),
)
