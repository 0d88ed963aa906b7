# Plain knowledge distillation of ResNet110 into ResNet20: what a searched student is compared with.
_base_ = './diswot_resnet20_resnet110_1xb64-steplr-240e_cifar100.py'

model = dict(relation_loss=None, channel_loss=None)
