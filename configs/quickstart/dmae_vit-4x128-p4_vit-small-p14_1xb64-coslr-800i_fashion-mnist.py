# DMAE on real images: a ViT of 4 blocks, trained on pixels and a block of a real ViT-S/14. Both see a grid of 7 x 7 patches:
# the student 4 pixels of 28, the teacher 14 of 98. The teacher's file is what `vfd quickstart vit` prepares.
_base_ = ['./_base_/data_fashion-mnist_unlabelled.py', './_base_/dmae_vit-4x128-p4.py']

model = dict(
    student=dict(img_size=28),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='vit_small_patch14_dinov2', img_size=98),
        checkpoint='work_dirs/quickstart_vit/teacher.safetensors',
        input_size=98,
        resize_pos_embed=True),
    align=[dict(student=2, teacher=9)],
)
