# SSLD with PPHGNet_small with its SSLD weights, and soft cross-entropy as in the later recipes; timm
# downloads the weights.
model = dict(
    type='vfd.SSLDDistiller',
    student=dict(type='mmpretrain.TimmClassifier'),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='hgnet_small.ssld_in1k'),
        checkpoint='pretrained'),
    teacher_bn='train',
    distill_loss=dict(type='vfd.SSLDLoss', mode='ce'),
)
