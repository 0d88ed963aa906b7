_base_ = './_base_/zero-shot_clip-vit-base-p16.py'

model = dict(class_names='{{ fileDirname }}/_base_/class_names/coco-stuff.txt')
test_dataloader = dict(
    dataset=dict(
        type='COCOStuffDataset',
        data_root='data/coco_stuff164k',
        data_prefix=dict(img_path='images/val2017', seg_map_path='annotations/val2017'),
        pipeline=_base_.load_image
        + [dict(type='Resize', scale=(2048, 448), keep_ratio=True)]
        + _base_.load_labels,
    )
)
