# FKD on a laptop: a tiny network and the labels of a random teacher. It shows that everything runs.
_base_ = [
    '../_base_/datasets/folder_stored-crops32.py',
    '../_base_/schedules/sgd_multi-crop_cosine-300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='vfd.FerKD',
    student=dict(type='mmpretrain.TimmClassifier', model_name='test_resnet', num_classes=10),
)
train_cfg = dict(max_epochs=12)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=2)
