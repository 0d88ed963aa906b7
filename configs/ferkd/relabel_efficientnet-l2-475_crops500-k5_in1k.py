# The store that FKD's and FerKD's main results train from: 500 crops of every ImageNet-1k image, five classes a label,
# by EfficientNet-L2 (noisy student) at 475 pixels. Crops cover up to 93.6 % of the image, as the teacher was trained.
# About 24 GB.
_base_ = '../_base_/datasets/in1k_relabel.py'

model = dict(
    type='vfd.RegionLabeller',
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='tf_efficientnet_l2.ns_jft_in1k_475'),
        checkpoint='pretrained',
        input_size=475),
    crops=500,
    label_type='marginal_smoothing_k5',
    scale=(0.08, 0.936),
    chunk=50,
)
