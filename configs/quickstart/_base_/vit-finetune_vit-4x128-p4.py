# Fine-tunes the ViT of 4 blocks on the labelled images; without model.checkpoint it is the baseline from scratch.
_base_ = './schedule_vit.py'

model = dict(
    type='vfd.ViTClassifier',
    model_name='vit_tiny_patch16_224',
    patch_size=4,
    embed_dim=128,
    depth=4,
    num_heads=4,
    num_classes=10,
    global_pool='avg',
    drop_path_rate=0.1,
    loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    data_preprocessor=dict(
        type='vfd.ClsDataPreprocessor',
        num_classes=10,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True),
)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='vfd.LayerDecay',
    paramwise_cfg=dict(layer_decay=0.75, no_decay=('1d', 'bias', 'pos_embed', 'cls_token')),
)
train_cfg = dict(max_iters=600, val_interval=200)
