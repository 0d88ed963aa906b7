# FerKD's labels by EVA ViT-g/14 (CLIP) at 336 pixels, 89.38 % top-1.
_base_ = './relabel_efficientnet-l2-475_crops500-k5_in1k.py'

model = dict(
    teacher=dict(source=dict(model_name='eva_giant_patch14_336.clip_ft_in1k'), input_size=336),
    scale=(0.08, 1.0),
)
