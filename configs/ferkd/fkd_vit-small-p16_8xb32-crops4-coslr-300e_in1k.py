# FKD, ViT-S/16: four stored crops of an image at a time. The authors publish no number for it.
_base_ = [
    '../_base_/datasets/in1k_stored-crops224.py',
    '../_base_/schedules/adamw_multi-crop_cosine-300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='vfd.FerKD',
    student=dict(
        type='mmpretrain.TimmClassifier',
        model_name='vit_small_patch16_224',
        num_classes=1000,
        drop_path_rate=0.1),
)
