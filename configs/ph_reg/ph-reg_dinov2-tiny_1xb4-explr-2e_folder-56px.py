# PH-Reg on a laptop: a folder of photos, a tiny network in DINOv2's layout, CPU. Its weights are RANDOM: it shows that
# everything runs. Name real ones with --cfg-options model.teacher.checkpoint=FILE.
_base_ = [
    '../_base_/datasets/folder_ph-reg56.py',
    '../_base_/schedules/adamw-ph-reg_exponential.py',
]

network = dict(
    type='vfd.RegisterViT',
    model_name='vit_small_patch14_dinov2',
    img_size=56,
    patch_size=7,
    embed_dim=48,
    depth=3,
    num_heads=3,
    init_values=1.0,
)
model = dict(
    type='vfd.PHReg',
    student=dict(num_registers=4, unlock_last_blocks=1, **network),
    teacher=dict(
        type='vfd.DenoisedTeacher',
        source=dict(type='vfd.DenseSource', network=network),
        checkpoint='random',
        num_views=4,
    ),
)
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01)
)
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
auto_scale_lr = dict(base_batch_size=4)
