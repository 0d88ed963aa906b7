# Stage 2 on a laptop: from mae_tiny again, under stage 1; with ROUND=2 in the environment under this stage, and so on.
_base_ = './further-pretrain-stage1_tiny_1xb8-linearlr-12i_folder.py'

# The run that the round's teacher comes from.
teachers = {'1': 'stage1', '2': 'stage2'} | {str(n): f'stage2-round{n - 1}' for n in range(3, 100)}
teacher_run = teachers['{{$ROUND:1}}']
run = 'work_dirs/further-pretrain-{}_tiny_1xb8-linearlr-12i_folder'
if teacher_run != 'stage1':
    work_dir = run.format('stage2-round{{$ROUND:1}}')

model = dict(
    type='vfd.SelfDistillMAE',
    teacher=dict(
        type='vfd.Teacher',
        source=dict(
            type='vfd.MAESource', img_size=32, patch_size=4, embed_dim=48, depth=3, num_heads=3),
        checkpoint=f'{run.format(teacher_run)}/iter_12.pth'),
)
del teachers, run
