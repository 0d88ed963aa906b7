# Stage 2 of further pre-training: the released ViT-B again, now pulled to what stage 1 made of it.
_base_ = './further-pretrain-stage1_vit-base-p16_1xb64-linearlr-20k_folder.py'

model = dict(
    type='vfd.SelfDistillMAE',
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.MAESource', arch='base', norm_eps=1e-12),
        checkpoint='work_dirs/further-pretrain-stage1_vit-base-p16_1xb64-linearlr-20k_folder/iter_20000.pth'),
    target='cls',
    reduction='sum',
    loss_weight=1.0,
)
