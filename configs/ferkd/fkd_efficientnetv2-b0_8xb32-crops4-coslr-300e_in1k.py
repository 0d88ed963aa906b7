# FKD, EfficientNetV2-B0: four stored crops of an image at a time. Published by the authors: 79.94 % top-1.
_base_ = [
    '../_base_/datasets/in1k_stored-crops224.py',
    '../_base_/schedules/adamw_multi-crop_cosine-300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='vfd.FerKD',
    student=dict(
        type='mmpretrain.TimmClassifier',
        model_name='tf_efficientnetv2_b0',
        num_classes=1000,
        drop_path_rate=0.1),
)
