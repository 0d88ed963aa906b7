# FerKD, ResNet-101: FKD with calibrated labels and SelfMix. The authors publish no number for it.
# Thresholds, epsilon and the details of SelfMix are not public: project defaults.
_base_ = './fkd_resnet101_8xb32-crops4-coslr-300e_in1k.py'

model = dict(selfmix=dict(kind='cutmix'))
train_dataloader = dict(
    dataset=dict(calibration=dict(thresholds=(0.05, 0.30, 0.99), epsilon=0.1, confidence='max')))
