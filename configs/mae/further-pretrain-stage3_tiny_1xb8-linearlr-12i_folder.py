# Stage 3 on a laptop: the encoder of stage 2 is fine-tuned on the labels of the small folder.
_base_ = [
    '../_base_/datasets/folder-labelled_further-pretrain32.py',
    '../_base_/schedules/adamw-further-pretrain_linear-10k-finetune.py',
]

model = dict(
    type='vfd.ViTClassifier',
    model_name='vit_tiny_patch16_224',
    img_size=32,
    patch_size=4,
    embed_dim=48,
    depth=3,
    num_heads=3,
    global_pool='token',
    num_classes=10,
    pos_drop_rate=0.1,
    proj_drop_rate=0.1,
    mlp_hidden_drop_rate=0.0,
    head_init_std=0.02,
    checkpoint='work_dirs/further-pretrain-stage2_tiny_1xb8-linearlr-12i_folder/iter_12.pth',
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(warmup=3)
train_cfg = dict(max_iters=12, val_interval=12)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=6))
auto_scale_lr = dict(base_batch_size=8)
