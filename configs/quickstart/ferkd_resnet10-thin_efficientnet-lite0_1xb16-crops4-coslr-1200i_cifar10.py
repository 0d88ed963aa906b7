# FerKD on cifar10: the calibrated store, and SelfMix.
_base_ = './fkd_resnet10-thin_efficientnet-lite0_1xb16-crops4-coslr-1200i_cifar10.py'

model = dict(selfmix=dict(kind='cutmix'))
train_dataloader = dict(
    dataset=dict(store='work_dirs/quickstart_ferkd/cifar10/labels-calibrated'))
