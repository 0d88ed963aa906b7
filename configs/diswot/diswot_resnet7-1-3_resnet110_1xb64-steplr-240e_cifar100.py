# The paper's example of a searched student: 0.26 M parameters against the 0.28 M of ResNet20.
_base_ = './diswot_resnet20_resnet110_1xb64-steplr-240e_cifar100.py'

model = dict(student=dict(blocks=[7, 1, 3]))
