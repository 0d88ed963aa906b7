# FKD, ResNet-50: four stored crops of an image at a time.
# Published by the authors: 80.1 % top-1 (paper; 79.8 in the plain recipe).
_base_ = [
    '../_base_/datasets/in1k_stored-crops224.py',
    '../_base_/schedules/sgd_multi-crop_cosine-300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='vfd.FerKD',
    student=dict(type='mmpretrain.TimmClassifier', model_name='resnet50', num_classes=1000),
)
