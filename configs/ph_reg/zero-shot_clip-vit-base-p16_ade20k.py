_base_ = './_base_/zero-shot_clip-vit-base-p16.py'

model = dict(class_names='{{ fileDirname }}/_base_/class_names/ade20k.txt')
test_dataloader = dict(
    dataset=dict(
        type='ADE20KDataset',
        data_root='data/ade/ADEChallengeData2016',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=_base_.load_image
        + [dict(type='Resize', scale=(2048, 448), keep_ratio=True)]
        + _base_.load_labels,
    )
)
