# Fine-tuning of the ViT-Ti that DMAE pre-trained. No script for it was released; the settings are those of ViT-B [ours].
_base_ = './dmae-finetune_vit-base-p16_8xb128-amp-coslr-100e_in1k.py'

model = dict(
    model_name='vit_tiny_patch16_224',
    checkpoint='work_dirs/dmae_vit-tiny-p16_vit-base-p16_8xb128-accum4-amp-coslr-100e_in1k/epoch_100.pth',
)
