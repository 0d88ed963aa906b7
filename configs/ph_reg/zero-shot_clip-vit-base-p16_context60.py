# The threshold of the background is published for VOC only; here it is the project default.
_base_ = './_base_/zero-shot_clip-vit-base-p16.py'

model = dict(class_names='{{ fileDirname }}/_base_/class_names/context60.txt', prob_thd=0.1)
test_dataloader = dict(
    dataset=dict(
        type='PascalContextDataset',
        data_root='data/VOCdevkit/VOC2010',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/val.txt',
        pipeline=_base_.load_image
        + [dict(type='Resize', scale=(2048, 448), keep_ratio=True)]
        + _base_.load_labels,
    )
)
