# Labels are made from the files of COCO-Stuff [ours].
# The threshold of the background is published for VOC only; here it is the project default.
_base_ = './_base_/zero-shot_clip-vit-base-p16.py'

model = dict(class_names='{{ fileDirname }}/_base_/class_names/coco-object.txt', prob_thd=0.1)
test_dataloader = dict(
    dataset=dict(
        type='vfd.COCOObjectDataset',
        data_root='data/coco_stuff164k',
        data_prefix=dict(img_path='images/val2017', seg_map_path='annotations/val2017'),
        pipeline=_base_.load_image
        + [dict(type='Resize', scale=(2048, 336), keep_ratio=True)]
        + _base_.load_labels,
    )
)
