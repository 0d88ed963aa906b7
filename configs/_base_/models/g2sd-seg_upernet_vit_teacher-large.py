# The same with a ViT-L teacher. Its decode head is 1024 wide, as BEiT's released UPerNet on ViT-L is [ours].
_base_ = './g2sd-seg_upernet_vit.py'

model = dict(
    teacher=dict(
        source=dict(
            model=dict(
                backbone=dict(arch='large', out_indices=(7, 11, 15, 23)),
                decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024))),
        checkpoint='checkpoints/upernet_mae-vit-large_160k_ade20k-512x512.pth'))
