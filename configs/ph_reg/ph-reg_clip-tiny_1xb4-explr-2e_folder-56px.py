# The same with a tiny network in CLIP's layout: MaskCLIP's values, trained on NACLIP's features. RANDOM weights.
_base_ = './ph-reg_dinov2-tiny_1xb4-explr-2e_folder-56px.py'

tower = dict(
    type='vfd.RegisterCLIP',
    model_name='ViT-B-16-quickgelu',
    embed_dim=32,
    vision_cfg=dict(layers=3, width=48, head_width=16, patch_size=7, image_size=28),
)
model = dict(
    student=dict(_delete_=True, num_registers=4, img_size=56, head='maskclip', unlock_last_blocks=2, **tower),
    teacher=dict(source=dict(network=dict(_delete_=True, head='naclip', **tower))),
)
