# The teacher of the quickstart where no trained ViT is at hand: a masked autoencoder of 6 blocks on the same images.
_base_ = ['./_base_/data_fashion-mnist_unlabelled.py', './_base_/vit_unlabelled.py']

model = dict(
    type='vfd.MAE',
    student=dict(
        type='vfd.MaskedAutoencoder',
        img_size=28,
        patch_size=4,
        embed_dim=192,
        depth=6,
        num_heads=6,
        decoder_embed_dim=64,
        decoder_depth=2,
        decoder_num_heads=4),
    mask_ratio=0.75,
)
