# MAE's own fine-tuning of ViT-H at 224 px. Published by MAE's authors: 86.93 % top-1.
_base_ = './mae-finetune_vit-large-p16_8xb128-amp-coslr-50e_in1k.py'

model = dict(
    model_name='vit_huge_patch14_224',
    drop_path_rate=0.3,
    checkpoint='checkpoints/mae_pretrain_vit_huge.pth',
)
