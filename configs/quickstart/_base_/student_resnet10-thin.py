# 0.115 M parameters: timm's ResNet with one block a stage and thin stages. 28-pixel images leave its stem with 7 x 7
# positions; the last stage dilates instead of striding, so 2 x 2 are left at the end.
student = dict(
    type='mmpretrain.TimmClassifier',
    model_name='resnet18',
    num_classes=10,
    layers=[1, 1, 1, 1],
    channels=[24, 32, 40, 48],
    output_stride=16,
)
data_preprocessor = dict(
    type='vfd.ClsDataPreprocessor',
    num_classes=10,
    mean=[127.5, 127.5, 127.5],
    std=[127.5, 127.5, 127.5],
    to_rgb=True,
)
