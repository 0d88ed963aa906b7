# Pre-training of a vision transformer on the unlabelled images: how pixels are normalised.
_base_ = './schedule_vit.py'

model = dict(
    data_preprocessor=dict(
        type='vfd.SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True),
)
