# ImageNet-1k's training images, to be labelled: no pipeline, the labeller cuts its own crops.
default_scope = 'mmpretrain'

train_dataloader = dict(
    num_workers=8,
    dataset=dict(type='mmpretrain.ImageNet', data_root='data/imagenet', split='train'),
)
