# The images without their labels, for pre-training, which has nothing to validate.
_base_ = './data_cifar10.py'

train_dataloader = dict(collate_fn=dict(type='default_collate'))
val_dataloader = None
val_evaluator = None
test_dataloader = None
test_evaluator = None
