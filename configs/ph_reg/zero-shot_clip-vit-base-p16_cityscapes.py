_base_ = './_base_/zero-shot_clip-vit-base-p16.py'

model = dict(class_names='{{ fileDirname }}/_base_/class_names/cityscapes.txt', crop_size=224)
test_dataloader = dict(
    dataset=dict(
        type='CityscapesDataset',
        data_root='data/cityscapes',
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
        pipeline=_base_.load_image
        + [dict(type='Resize', scale=(2048, 560), keep_ratio=True)]
        + _base_.load_labels,
    )
)
