# Registers for a real ViT-S/14 from a dozen photos. The teacher's file and the photos are what `vfd quickstart registers`
# prepares. Positions are those of 518 pixels and are interpolated.
_base_ = ['../_base_/datasets/folder_ph-reg518.py', '../_base_/schedules/adamw-ph-reg_exponential.py']

network = dict(type='vfd.RegisterViT', model_name='vit_small_patch14_dinov2', img_size=518)
model = dict(
    type='vfd.PHReg',
    student=dict(num_registers=16, unlock_last_blocks=1, **network),
    teacher=dict(
        type='vfd.DenoisedTeacher',
        source=dict(type='vfd.DenseSource', network=network),
        checkpoint='work_dirs/quickstart_vit/teacher.safetensors',
    ),
)
train_pipeline = [
    dict(type='vfd.LoadImage'),
    dict(type='mmpretrain.ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='mmpretrain.RandomCrop', crop_size=224),
    dict(type='mmpretrain.PackInputs'),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root='data/quickstart/photos/train', pipeline=train_pipeline),
)
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.01, fused=True)
)
train_cfg = dict(max_epochs=20)
default_hooks = dict(logger=dict(interval=6), checkpoint=dict(interval=10, max_keep_ckpts=1))
randomness = dict(seed=0)
