# FerKD on a laptop: calibrated while the labels are read, SelfMix, and the warm-up of the recipe for transformers. A
# random teacher has low confidences: the thresholds are quantiles, so that there is something to calibrate.
_base_ = './fkd_tiny_1xb2-crops4-coslr-12e_folder.py'

model = dict(selfmix=dict(kind='cutmix', derange=True))
train_dataloader = dict(dataset=dict(calibration=dict(quantiles=(0.2, 0.5, 0.9))))
param_scheduler = dict(warmup=1, warmup_start=0.1)
train_cfg = dict(single_crop_warmup=1)
