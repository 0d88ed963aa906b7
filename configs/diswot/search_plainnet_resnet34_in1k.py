# Zen-NAS structures of at most 7 M parameters for ResNet34 on ImageNet: widths differ, so only the relation is compared.
_base_ = [
    '../_base_/datasets/in1k_paddle-crop224.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='vfd.DisWOT',
    student=dict(type='mmpretrain.TimmClassifier', model_name='resnet18', num_classes=1000),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='resnet34.tv_in1k'),
        checkpoint='pretrained'),
)
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=1e-4))
train_cfg = dict(max_epochs=90)
auto_scale_lr = dict(base_batch_size=256)

search = dict(
    space=dict(
        type='vfd.PlainNetSpace',
        start='SuperConvK7BNRELU(3,64,2,1)SuperResK3K3(64,64,2,64,2)SuperResK3K3(64,128,2,128,2)'
        'SuperResK3K3(128,256,2,256,2)SuperResK3K3(256,512,2,512,2)',
        moves='xxbl',
        max_layers=18),
    scorers=['relation'],
    searcher=dict(type='vfd.Evolution', budget=5000, population=512),
    limits=dict(params=7e6),
    seeds=1,
)
