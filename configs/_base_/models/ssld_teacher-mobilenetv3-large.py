# SSLD with MobileNetV3_large as teacher and soft cross-entropy as in the later recipes. Which weights the
# authors took is not stated; timm's own are ours [ours].
model = dict(
    type='vfd.SSLDDistiller',
    student=dict(type='mmpretrain.TimmClassifier'),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='mobilenetv3_large_100.ra_in1k'),
        checkpoint='pretrained'),
    teacher_bn='train',
    distill_loss=dict(type='vfd.SSLDLoss', mode='ce'),
)
