# An ablation of the paper: the denoised teacher, a student without registers.
_base_ = './ph-reg_clip-vit-base-p16_4xb16-amp-explr-100e_flickr30k-448px.py'

model = dict(student=dict(num_registers=0))
