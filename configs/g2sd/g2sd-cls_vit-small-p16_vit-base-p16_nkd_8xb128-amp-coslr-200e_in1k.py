# ViT-S after the generic stage, with NKD in place of the distillation token, as the released code offers. Nothing is
# published for it: temperature and weight of 1 are [ours], the rest is the setting with the token.
_base_ = './g2sd-cls_vit-small-p16_vit-base-p16_8xb128-amp-coslr-200e_in1k.py'

model = dict(
    student=dict(model_name='vit_small_patch16_224'),
    distill_loss=dict(type='vfd.NKDLoss', temperature=1.0, alpha=1.0),
    label_smoothing=None,
)
