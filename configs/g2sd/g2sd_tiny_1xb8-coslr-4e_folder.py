# The generic stage on a laptop: a folder of unlabelled images, tiny networks, CPU. The teacher is RANDOM: it shows that
# everything runs, and trains nothing useful. Name a real one with --cfg-options model.teacher.checkpoint=FILE.
_base_ = [
    '../_base_/datasets/folder_mae-pretrain32.py',
    '../_base_/schedules/adamw-mae_warmup-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='vfd.G2SDGeneric',
    student=dict(
        type='vfd.MaskedAutoencoder',
        img_size=32,
        patch_size=4,
        embed_dim=48,
        depth=3,
        num_heads=3,
        decoder_embed_dim=32,
        decoder_depth=2,
        decoder_num_heads=2),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(
            type='vfd.MAESource',
            img_size=32,
            patch_size=4,
            embed_dim=64,
            depth=4,
            num_heads=4,
            decoder_embed_dim=48,
            decoder_depth=3,
            decoder_num_heads=3),
        checkpoint='random'),
    teacher_layer=2,
    mask_ratio=0.75,
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(warmup=1)
train_cfg = dict(max_epochs=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=4))
auto_scale_lr = dict(base_batch_size=8)
