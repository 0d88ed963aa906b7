# Fine-tuning on a laptop: a folder data set of ten classes, CPU, from the student that dmae_tiny_... pre-trained.
_base_ = [
    '../_base_/models/vit-finetune_gap.py',
    '../_base_/datasets/folder_mae-finetune32.py',
    '../_base_/schedules/adamw-layer-decay_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    model_name='vit_tiny_patch16_224',
    img_size=32,
    patch_size=4,
    embed_dim=48,
    depth=3,
    num_heads=3,
    num_classes=10,
    drop_path_rate=0.1,
    checkpoint='work_dirs/dmae_tiny_1xb8-coslr-4e_folder/epoch_4.pth',
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(warmup=1, eta_min_ratio=1e-3)
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
auto_scale_lr = dict(base_batch_size=8)
