# FerKD's labels by BEiT-L at 224 pixels.
_base_ = './relabel_efficientnet-l2-475_crops500-k5_in1k.py'

model = dict(
    teacher=dict(source=dict(model_name='beit_large_patch16_224.in22k_ft_in22k_in1k'), input_size=224),
    scale=(0.08, 1.0),
)
