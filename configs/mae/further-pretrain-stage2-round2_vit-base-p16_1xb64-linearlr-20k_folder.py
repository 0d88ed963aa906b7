# Stage 2 once more, under the network that stage 2 gave: the student starts from the released weights again. [ours]:
# the released code stops after one round, the paper's method has any number.
_base_ = './further-pretrain-stage2_vit-base-p16_1xb64-linearlr-20k_folder.py'

model = dict(
    teacher=dict(
        checkpoint='work_dirs/further-pretrain-stage2_vit-base-p16_1xb64-linearlr-20k_folder/iter_20000.pth'),
)
