# Momentum without Nesterov, L2 on every parameter (batch norm and biases too), no clipping; cosine by iteration
# to 0 after five epochs of linear warm-up from 0. lr, weight_decay and max_epochs are set by each config.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = dict(type='vfd.WarmupCosineByIter', warmup=5, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=5)
val_cfg = dict()
test_cfg = dict()
