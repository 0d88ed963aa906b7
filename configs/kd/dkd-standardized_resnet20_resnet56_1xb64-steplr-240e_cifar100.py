# Decoupled distillation of standardised logits. The authors' logs have beta 2 or 8 and weights from 9 to 18; which of them
# belongs to this pair is not published: 2 and 9 [ours].
_base_ = './kd-standardized_resnet20_resnet56_1xb64-steplr-240e_cifar100.py'

model = dict(decoupled=dict(alpha=1.0, beta=2.0, warmup_epochs=20))
