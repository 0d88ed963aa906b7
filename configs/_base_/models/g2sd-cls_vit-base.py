# G2SD's specific stage for classification with MAE's released, fine-tuned ViT-B (83.6 % top-1) as teacher.
model = dict(
    type='vfd.G2SDClassifier',
    student=dict(type='vfd.ViTClassifier', num_classes=1000),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(
            type='vfd.TimmSource', model_name='vit_base_patch16_224.mae', global_pool='avg', num_classes=1000),
        checkpoint='checkpoints/mae_finetuned_vit_base.pth'),
    label_smoothing=0.1,
)
# The supervised baseline (--baseline) smooths its labels equally.
baseline = dict(
    model=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
)
