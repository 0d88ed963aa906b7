# UPerNet on a BEiT-style transformer, ViT-S under ViT-B. The segmentor is mmseg's of BEiT, with one crop size of 512, a
# decode head as wide as the transformer, and layer scale that starts at 1. The teacher is the same network on ViT-B,
# fine-tuned on ADE20K from MAE's weights.
_base_ = 'mmseg::_base_/models/upernet_beit.py'

image_size = (512, 512)
# SyncBN becomes BN where a run is not distributed.
decode_head = _base_.model.decode_head
auxiliary_head = _base_.model.auxiliary_head
# Test images narrower than a crop are padded to it.
data_preprocessor = dict(
    type='mmseg.SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size=image_size,
    test_cfg=dict(size=image_size))

model = dict(
    _delete_=True,
    type='vfd.G2SDSegmentor',
    student=dict(
        type='mmseg.EncoderDecoder',
        backbone=dict(
            type='vfd.BEiTPyramid', arch='small', img_size=image_size, drop_path_rate=0.1, out_indices=(3, 5, 7, 11)),
        decode_head=dict(decode_head, in_channels=[384, 384, 384, 384], channels=384),
        auxiliary_head=dict(auxiliary_head, in_channels=384),
        test_cfg=dict(mode='slide', crop_size=image_size, stride=(341, 341))),
    teacher=dict(
        type='vfd.Teacher',
        source=dict(
            type='vfd.MMSegSource',
            model=dict(
                type='mmseg.EncoderDecoder',
                data_preprocessor=data_preprocessor,
                backbone=dict(type='vfd.BEiTPyramid', arch='base', img_size=image_size, out_indices=(3, 5, 7, 11)),
                decode_head=decode_head)),
        checkpoint='checkpoints/upernet_mae-vit-base_160k_ade20k-512x512.pth'),
    # The authors' instructions say 3; their config file says 10.
    distill_loss=dict(type='vfd.ChannelWiseLoss', mode='cwd', temperature=1.0, loss_weight=3.0),
    data_preprocessor=data_preprocessor,
)
