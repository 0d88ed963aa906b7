# PPHGNetV2_B4, first stage: 5 M images, no labels, from scratch. No published result of this stage.
# The published batch is 128 per GPU; the number of GPUs is not published, eight is ours [ours].
_base_ = [
    '../_base_/models/ssld_teacher-hgnet-small.py',
    '../_base_/datasets/in5m_paddle-crop224_randaug.py',
    '../_base_/schedules/sgd_warmup5-cosine.py',
    '../_base_/default_runtime.py',
]

model = dict(
    student=dict(model_name='hgnetv2_b4'),
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=0.5, weight_decay=2e-5))
train_cfg = dict(max_epochs=360)
auto_scale_lr = dict(base_batch_size=1024)
