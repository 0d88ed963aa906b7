# The published pair: ViT-B/16 under ViT-L/16, block 9 of 12 to block 18 of 24.
model = dict(
    type='vfd.DMAE',
    student=dict(
        type='vfd.MaskedAutoencoder',
        arch='base',
        decoder_embed_dim=512,
        decoder_depth=8,
        decoder_num_heads=16),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.MAESource', arch='large'),
        checkpoint='checkpoints/mae_visualize_vit_large.pth'),
    align=[dict(student=8, teacher=17)],
    projector='fc',
    distance='l1',
    mask_ratio=0.75,
)
