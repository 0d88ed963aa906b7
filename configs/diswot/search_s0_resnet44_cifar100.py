# All 64 CIFAR ResNets for ResNet44.
_base_ = ['./diswot_resnet20_resnet44_1xb64-steplr-240e_cifar100.py', './_base_/search_s0_cifar100.py']
