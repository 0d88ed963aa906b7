# Stage 2 of further pre-training: the released ViT-B again, now pulled to what stage 1 made of it. With ROUND=2 in the
# environment, pulled to what this stage made of it, with ROUND=3 to what round 2 made, and so on; the released code stops
# after one round, the paper's method has any number.
_base_ = './further-pretrain-stage1_vit-base-p16_1xb64-linearlr-20k_folder.py'

# The run that the round's teacher comes from.
teachers = {'1': 'stage1', '2': 'stage2'} | {str(n): f'stage2-round{n - 1}' for n in range(3, 100)}
teacher_run = teachers['{{$ROUND:1}}']
run = 'work_dirs/further-pretrain-{}_vit-base-p16_1xb64-linearlr-20k_folder'
if teacher_run != 'stage1':
    work_dir = run.format('stage2-round{{$ROUND:1}}')

model = dict(
    type='vfd.SelfDistillMAE',
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.MAESource', arch='base', norm_eps=1e-12),
        checkpoint=f'{run.format(teacher_run)}/iter_20000.pth'),
    target='cls',
    reduction='sum',
    loss_weight=1.0,
)
del teachers, run
