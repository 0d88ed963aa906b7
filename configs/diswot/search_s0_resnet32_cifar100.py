# All 64 CIFAR ResNets for ResNet32.
_base_ = ['./diswot_resnet20_resnet32_1xb64-steplr-240e_cifar100.py', './_base_/search_s0_cifar100.py']
