# Stage 2, the teacher run once an image and not in every step: the same losses, a sixth less work.
_base_ = './further-pretrain-stage2_vit-base-p16_1xb64-linearlr-20k_folder.py'

custom_hooks = [dict(type='vfd.TeacherCacheHook', store=f'work_dirs/further-pretrain-{_base_.teacher_run}_answers')]
