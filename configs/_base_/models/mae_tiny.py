# A masked autoencoder that fits any laptop: 64 patches of 4 pixels.
model = dict(
    type='vfd.MAE',
    student=dict(
        type='vfd.MaskedAutoencoder',
        img_size=32,
        patch_size=4,
        embed_dim=48,
        depth=3,
        num_heads=3,
        decoder_embed_dim=32,
        decoder_depth=1,
        decoder_num_heads=2),
    mask_ratio=0.75,
    norm_pix=True,
)
