# MAE's fine-tuning network: the mean of the patch tokens, a norm, a linear classifier.
model = dict(
    type='vfd.ViTClassifier',
    global_pool='avg',
    num_classes=1000,
    loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
)
