# Zero-shot segmentation with the distilled image tower of OpenAI's CLIP ViT-B/16: `vfd test CONFIG CHECKPOINT`, with a
# checkpoint of the distillation or a released file. Sides, windows and stride of every data set are the published ones.
_base_ = '../../_base_/default_runtime.py'

default_scope = 'mmseg'
model = dict(
    type='vfd.ZeroShotSegmentor',
    backbone=dict(
        type='vfd.RegisterCLIP',
        model_name='ViT-B-16-quickgelu',
        tag='openai',
        num_registers=16,
        img_size=448,
        head='maskclip',
        frozen=True,
    ),
    text_model='ViT-B-16-quickgelu',
    text_weights='openai',
    crop_size=336,
    stride=112,
    logit_scale=40,
    pamr_steps=0,
    # An image narrower than a window is padded to it.
    data_preprocessor=dict(
        type='mmseg.SegDataPreProcessor',
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        test_cfg=dict(size=(336, 336)),
    ),
)

load_image = [dict(type='vfd.LoadImage')]
# Labels keep their own size.
load_labels = [dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
test_dataloader = dict(
    batch_size=1, num_workers=4, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False)
)
test_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU']),
    dict(type='vfd.HeatMapCorrelation'),
]
test_cfg = dict(type='TestLoop')
