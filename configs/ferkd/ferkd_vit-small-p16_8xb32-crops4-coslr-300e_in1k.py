# FerKD, ViT-S/16: FKD with calibrated labels and SelfMix. The authors publish no number for it; the 81.16 % of their
# label zoo is not of this recipe.
# Thresholds, epsilon and the details of SelfMix are not public: project defaults.
_base_ = './fkd_vit-small-p16_8xb32-crops4-coslr-300e_in1k.py'

model = dict(selfmix=dict(kind='cutmix'))
train_dataloader = dict(
    dataset=dict(calibration=dict(thresholds=(0.05, 0.30, 0.99), epsilon=0.1, confidence='max')))
