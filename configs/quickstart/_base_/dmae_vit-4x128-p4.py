# DMAE: the student is a ViT of 4 blocks; each config names the size of the images and the teacher.
_base_ = './vit_unlabelled.py'

model = dict(
    type='vfd.DMAE',
    student=dict(
        type='vfd.MaskedAutoencoder',
        patch_size=4,
        embed_dim=128,
        depth=4,
        num_heads=4,
        decoder_embed_dim=64,
        decoder_depth=1,
        decoder_num_heads=4),
    mask_ratio=0.75,
)
