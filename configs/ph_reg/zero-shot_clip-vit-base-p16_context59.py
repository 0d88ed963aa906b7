_base_ = './_base_/zero-shot_clip-vit-base-p16.py'

model = dict(class_names='{{ fileDirname }}/_base_/class_names/context59.txt')
test_dataloader = dict(
    dataset=dict(
        type='PascalContextDataset59',
        data_root='data/VOCdevkit/VOC2010',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassContext'),
        ann_file='ImageSets/SegmentationContext/val.txt',
        pipeline=_base_.load_image
        + [dict(type='Resize', scale=(2048, 448), keep_ratio=True)]
        + _base_.load_labels,
    )
)
