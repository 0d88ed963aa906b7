# Label-free distillation on cifar10 from stored teacher outputs; `vfd quickstart` makes data and outputs.
_base_ = [
    '_base_/student_resnet10-thin.py',
    '_base_/data_cifar10.py',
    '_base_/schedule_1200i.py',
]

model = dict(
    type='vfd.SSLDDistiller',
    student={{_base_.student}},
    teacher=dict(
        type='vfd.StoredTeacher',
        store='work_dirs/quickstart/cifar10/targets',
        data_root={{_base_.data_root}},
    ),
    distill_loss=dict(type='vfd.SSLDLoss', mode='js'),
    data_preprocessor={{_base_.data_preprocessor}},
)
