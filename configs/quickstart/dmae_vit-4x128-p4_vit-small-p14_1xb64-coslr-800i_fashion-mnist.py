# DMAE on real images: a ViT of 4 blocks learns pixels and a block of a real ViT-S/14. Both see a grid of 7 x 7 patches: the
# student 4 pixels of 28, the teacher 14 of 98. The teacher's file is what tools/quickstart_vit.py prepares.
_base_ = ['./_base_/data_fashion-mnist.py', './_base_/schedule_vit.py']

model = dict(
    type='vfd.DMAE',
    student=dict(
        type='vfd.MaskedAutoencoder',
        img_size=28,
        patch_size=4,
        embed_dim=128,
        depth=4,
        num_heads=4,
        decoder_embed_dim=64,
        decoder_depth=1,
        decoder_num_heads=4),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='vit_small_patch14_dinov2', img_size=98),
        checkpoint='work_dirs/quickstart_vit/teacher.safetensors',
        input_size=98,
        resize_pos_embed=True),
    align=[dict(student=2, teacher=9)],
    mask_ratio=0.75,
    data_preprocessor=dict(
        type='mmpretrain.SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True),
)
train_dataloader = dict(collate_fn=dict(type='default_collate'))
# Pre-training has nothing to validate.
val_dataloader = None
val_evaluator = None
test_dataloader = None
test_evaluator = None
