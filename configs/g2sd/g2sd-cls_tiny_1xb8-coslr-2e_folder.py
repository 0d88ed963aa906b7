# The specific stage for classification on a laptop: a folder data set of ten classes, CPU, from the student of
# g2sd_tiny_.... The teacher is RANDOM: it shows that everything runs, and trains nothing useful. Name a real one with
# --cfg-options model.teacher.checkpoint=FILE.
_base_ = [
    '../_base_/models/g2sd-cls_vit-base.py',
    '../_base_/datasets/folder_mae-finetune32.py',
    '../_base_/schedules/adamw-layer-decay_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(
        model_name='vit_tiny_patch16_224_dist_token',
        img_size=32,
        patch_size=4,
        embed_dim=48,
        depth=3,
        num_heads=3,
        num_classes=10,
        checkpoint='work_dirs/g2sd_tiny_1xb8-coslr-4e_folder/epoch_4.pth'),
    teacher=dict(
        source=dict(
            img_size=32, patch_size=4, embed_dim=64, depth=4, num_heads=4, num_classes=10),
        checkpoint='random'),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(warmup=1, eta_min_ratio=1e-3)
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
auto_scale_lr = dict(base_batch_size=8)
