# DINOv2 ViT-B/14: the teacher is averaged over 10 views, the student has 16 registers and trains its last block.
model = dict(
    type='vfd.PHReg',
    student=dict(
        type='vfd.RegisterViT', model_name='vit_base_patch14_dinov2', num_registers=16, unlock_last_blocks=1
    ),
    teacher=dict(
        type='vfd.DenoisedTeacher',
        source=dict(
            type='vfd.DenseSource',
            network=dict(type='vfd.RegisterViT', model_name='vit_base_patch14_dinov2.lvd142m'),
        ),
        checkpoint='pretrained',
        dtype='bfloat16',
        num_views=10,
        shift_frac=0.15,
        offset_sampling='fps',
    ),
)
