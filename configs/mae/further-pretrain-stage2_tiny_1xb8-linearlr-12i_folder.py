# Stage 2 on a laptop: from mae_tiny again, under stage 1.
_base_ = './further-pretrain-stage1_tiny_1xb8-linearlr-12i_folder.py'

model = dict(
    type='vfd.SelfDistillMAE',
    teacher=dict(
        type='vfd.Teacher',
        source=dict(
            type='vfd.MAESource', img_size=32, patch_size=4, embed_dim=48, depth=3, num_heads=3),
        checkpoint='work_dirs/further-pretrain-stage1_tiny_1xb8-linearlr-12i_folder/iter_12.pth'),
)
