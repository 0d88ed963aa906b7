# Labels on a laptop: 12 crops of every image of a folder, a tiny network. The teacher is RANDOM: it shows that everything
# runs, and trains nothing useful. Name a real one with --cfg-options model.teacher.checkpoint=FILE.
_base_ = '../_base_/datasets/in1k_relabel.py'

model = dict(
    type='vfd.RegionLabeller',
    teacher=dict(
        type='vfd.Teacher',
        source=dict(type='vfd.TimmSource', model_name='test_efficientnet', num_classes=10),
        checkpoint='random',
        input_size=64),
    crops=12,
    label_type='marginal_smoothing_k5',
    chunk=5,
)
train_dataloader = dict(
    num_workers=0,
    dataset=dict(
        _delete_=True, type='mmpretrain.CustomDataset', data_root='data/folder', data_prefix='train'),
)
