# ResNet20 under ResNet56: soft labels and relations.
_base_ = [
    '../_base_/models/diswot_resnet20.py',
    '../_base_/datasets/cifar100_crop32.py',
    '../_base_/schedules/sgd_240e_cifar-distillation.py',
    '../_base_/default_runtime.py',
]

model = dict(
    teacher=dict(
        source=dict(model_name='cifar_resnet56'), checkpoint='checkpoints/resnet56_cifar100.pth'))
