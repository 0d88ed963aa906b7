# DMAE under a masked autoencoder that was trained on the same images (mae_vit-6x192-p4 of this folder).
_base_ = ['./_base_/data_cifar10_unlabelled.py', './_base_/dmae_vit-4x128-p4.py']

model = dict(
    student=dict(img_size=32),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(
            type='vfd.MAESource', img_size=32, patch_size=4, embed_dim=192, depth=6, num_heads=6),
        checkpoint='work_dirs/quickstart_vit/cifar10/mae/seed0/teacher/iter_800.pth'),
    align=[dict(student=2, teacher=4)],
)
