# An ablation of the paper: a student without registers, and the teacher's features of the image as it is.
_base_ = './ph-reg_clip-vit-base-p16_4xb16-amp-explr-100e_flickr30k-448px.py'

model = dict(student=dict(num_registers=0), teacher=dict(num_views=1))
