# Zero-shot segmentation on a laptop: a folder of images and label maps, a tiny CLIP, CPU. Its text tower is RANDOM: it
# shows that everything runs, and means nothing.
_base_ = './_base_/zero-shot_clip-vit-base-p16.py'

model = dict(
    backbone=dict(
        model_name='ViT-B-16',
        num_registers=4,
        img_size=64,
        embed_dim=16,
        vision_cfg=dict(layers=2, width=32, head_width=16),
        checkpoint='random',
    ),
    class_names=['background, wall', 'red disc', 'blue box'],
    text_model='local-dir:{{ fileDirname }}/_base_/clip_tiny',
    text_weights='random',
    crop_size=64,
    stride=32,
    prob_thd=0.1,
    data_preprocessor=dict(test_cfg=dict(size=(64, 64))),
)
test_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='BaseSegDataset',
        data_root='data/seg-small',
        data_prefix=dict(img_path='val/images', seg_map_path='val/labels'),
        metainfo=dict(classes=('background', 'disc', 'box')),
        img_suffix='.png',
        seg_map_suffix='.png',
        pipeline=_base_.load_image
        + [dict(type='Resize', scale=(192, 64), keep_ratio=True)]
        + _base_.load_labels,
    ),
)
