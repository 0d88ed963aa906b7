# FerKD's labels by EfficientNet-L2 (noisy student) at 800 pixels, 88.39 % top-1.
_base_ = './relabel_efficientnet-l2-475_crops500-k5_in1k.py'

model = dict(
    teacher=dict(source=dict(model_name='tf_efficientnet_l2.ns_jft_in1k'), input_size=800),
    scale=(0.08, 1.0),
)
