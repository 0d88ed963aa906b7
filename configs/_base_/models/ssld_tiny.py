# Two networks of timm that fit any laptop, ten classes. The teacher is RANDOM: the pair shows that everything
# runs, and trains nothing useful. Name a real one with --cfg-options model.teacher.checkpoint=FILE.
model = dict(
    type='vfd.SSLDDistiller',
    student=dict(type='mmpretrain.TimmClassifier', model_name='test_resnet', num_classes=10),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='test_efficientnet', num_classes=10),
        checkpoint='random'),
    distill_loss=dict(type='vfd.SSLDLoss', mode='js'),
)
