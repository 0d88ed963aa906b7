# Stage 1 of further pre-training: the released ViT-B goes on with MAE on the images of a folder.
_base_ = [
    '../_base_/datasets/folder_further-pretrain224.py',
    '../_base_/schedules/adamw-further-pretrain_linear-20k.py',
]

model = dict(
    type='vfd.MAE',
    student=dict(
        type='vfd.MaskedAutoencoder',
        arch='base',
        norm_eps=1e-12,
        checkpoint='checkpoints/mae_pretrain_vit_base_full.pth'),
    mask_ratio=0.75,
    norm_pix=True,
)
