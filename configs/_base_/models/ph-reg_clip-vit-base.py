# CLIP ViT-B/16: MaskCLIP's values, trained on NACLIP's features of 10 views; the released code trains the last two blocks,
# for the last one carries no attention. Positions are interpolated to 28 x 28 once.
model = dict(
    type='vfd.PHReg',
    student=dict(
        type='vfd.RegisterCLIP',
        model_name='ViT-B-16-quickgelu',
        num_registers=16,
        img_size=448,
        head='maskclip',
        unlock_last_blocks=2,
    ),
    teacher=dict(
        type='vfd.DenoisedTeacher',
        source=dict(
            type='vfd.DenseSource',
            network=dict(
                type='vfd.RegisterCLIP', model_name='ViT-B-16-quickgelu', head='naclip', tag='openai'
            ),
        ),
        checkpoint='pretrained',
        dtype='bfloat16',
        num_views=10,
        shift_frac=0.15,
        offset_sampling='fps',
    ),
)
