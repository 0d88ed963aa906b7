# SSLD with ResNet50_vd_ssld (82.4 % top-1), the teacher of the mobile students. timm does not host these
# weights: put a file with the names of timm's resnet50d there, or name it with --cfg-options
# model.teacher.checkpoint=FILE.
model = dict(
    type='vfd.SSLDDistiller',
    student=dict(type='mmpretrain.TimmClassifier'),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='resnet50d'),
        checkpoint='checkpoints/resnet50-vd_ssld.pth'),
    teacher_bn='train',
    distill_loss=dict(type='vfd.SSLDLoss', mode='js'),
)
