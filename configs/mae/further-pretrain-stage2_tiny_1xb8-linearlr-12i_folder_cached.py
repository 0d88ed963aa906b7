# Stage 2 on a laptop, the teacher run once an image.
_base_ = './further-pretrain-stage2_tiny_1xb8-linearlr-12i_folder.py'

custom_hooks = [dict(type='vfd.TeacherCacheHook', store=f'work_dirs/further-pretrain-{_base_.teacher_run}_tiny_answers')]
