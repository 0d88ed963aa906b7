# 1,200 steps of 64 images, whatever they are: the distilled student and its supervised baseline get the same budget.
# Only the last checkpoint counts; the accuracy in between is for the curves.
_base_ = '../../_base_/default_runtime.py'

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='vfd.WarmupCosineByIter', warmup=100, by_epoch=False)
train_cfg = dict(by_epoch=False, max_iters=1200, val_interval=300)
val_cfg = dict()
test_cfg = dict()

default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=600, max_keep_ckpts=1),
)
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=0)
log_processor = dict(by_epoch=False)
