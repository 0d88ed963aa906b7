# The same with the teacher in the loop: it sees each crop that the student sees. Slower, and right for any crop.
_base_ = './ssld_resnet10-thin_efficientnet-lite0_1xb64-coslr-1200i_cifar10.py'

model = dict(
    teacher=dict(
        _delete_=True,
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='tf_efficientnet_lite0', num_classes=10),
        checkpoint='work_dirs/quickstart/cifar10/teacher.safetensors',
        input_size=112,
    ),
    teacher_bn='eval',  # its classifier was fitted to features of the stored statistics
)
