# FerKD's labels by RegNetY-128GF (SWAG) at 384 pixels, 88.24 % top-1.
_base_ = './relabel_efficientnet-l2-475_crops500-k5_in1k.py'

model = dict(
    teacher=dict(source=dict(model_name='regnety_1280.swag_ft_in1k'), input_size=384),
    scale=(0.08, 1.0),
)
