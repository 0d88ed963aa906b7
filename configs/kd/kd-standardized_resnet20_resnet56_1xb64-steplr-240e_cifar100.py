# Standardised logits of ResNet56 for ResNet20, with the temperature and the weight that the authors' logs have for this
# pair.
_base_ = './kd_resnet20_resnet56_1xb64-steplr-240e_cifar100.py'

model = dict(standardize=True, temperature=2.0, kd_weight=9.0)
