# DMAE on real images: a ViT of 4 blocks, trained on pixels and a block of a real ViT-S/14. Both see a grid of 8 x 8 patches:
# the student 4 pixels of 32, the teacher 14 of 112. The teacher's file is what `vfd quickstart vit` prepares.
_base_ = ['./_base_/data_cifar10_unlabelled.py', './_base_/dmae_vit-4x128-p4.py']

model = dict(
    student=dict(img_size=32),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='vit_small_patch14_dinov2', img_size=112),
        checkpoint='work_dirs/quickstart_vit/teacher.safetensors',
        input_size=112,
        resize_pos_embed=True),
    align=[dict(student=2, teacher=9)],
)
