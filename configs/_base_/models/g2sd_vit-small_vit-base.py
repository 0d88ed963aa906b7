# Generic stage: ViT-S/16 with a decoder of four blocks predicts what four blocks of ViT-B's decoder give.
model = dict(
    type='vfd.G2SDGeneric',
    student=dict(
        type='vfd.MaskedAutoencoder',
        arch='small',
        decoder_embed_dim=256,
        decoder_depth=4,
        decoder_num_heads=8),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(
            type='vfd.MAESource',
            arch='base',
            decoder_embed_dim=512,
            decoder_depth=8,
            decoder_num_heads=16),
        checkpoint='checkpoints/mae_pretrain_vit_base_full.pth'),
    teacher_layer=4,
    supervise='all',
    mask_ratio=0.75,
)
