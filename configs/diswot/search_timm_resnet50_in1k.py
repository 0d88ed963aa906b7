# Small networks of timm for ResNet50. Their widths differ from the teacher's, so only the relation is compared.
_base_ = './search_plainnet_resnet34_in1k.py'

model = dict(
    teacher=dict(source=dict(model_name='resnet50.a1_in1k')),
)
search = dict(
    space=dict(
        _delete_=True,
        type='vfd.TimmSpace',
        models=['resnet18', 'resnet10t', 'resnet14t', 'mobilenetv3_*_100', 'mobilenetv4_conv_small', 'efficientnet_lite0',
                'ghostnet_100', 'mnasnet_100', 'lcnet_*', 'regnety_002', 'regnetx_004', 'mobileone_s0']),
    searcher=dict(_delete_=True, type='vfd.Exhaustive'),
    limits=dict(_delete_=True, params=20e6, flops=2e9),
    init='default',
    measure_latency=True,
    seeds=3,
)
