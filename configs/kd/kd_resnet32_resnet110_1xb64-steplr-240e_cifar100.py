# Plain knowledge distillation of ResNet110 into ResNet32.
_base_ = './kd_resnet20_resnet110_1xb64-steplr-240e_cifar100.py'

model = dict(student=dict(model_name='cifar_resnet32'))
