# SSLD with ResNeXt101_32x16d_wsl (84.2 % top-1), the first teacher of the chain; timm downloads the weights.
model = dict(
    type='vfd.SSLDDistiller',
    student=dict(type='mmpretrain.TimmClassifier'),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='resnext101_32x16d.fb_wsl_ig1b_ft_in1k'),
        checkpoint='pretrained'),
    teacher_bn='train',
    distill_loss=dict(type='vfd.SSLDLoss', mode='js'),
)
