# ViT-S/16 under ViT-B/16, block 9 of 12 to block 9 of 12: a setting that users of the released code report.
_base_ = './dmae_vit-base_vit-large.py'

model = dict(
    student=dict(arch='small'),
    teacher=dict(
        source=dict(arch='base'),
        checkpoint='checkpoints/mae_visualize_vit_base.pth'),
    align=[dict(student=8, teacher=8)],
)
