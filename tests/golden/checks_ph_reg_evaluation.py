"""PH-Reg's evaluation: zero-shot segmentation, linear probes, artifact metrics."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from golden_tools import close, equal, floats
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from vfd.evaluation import artifacts, depth_metrics
from vfd.evaluation.depth_probe import DepthProbe
from vfd.evaluation.segmentation_probe import LinearSegHead
from vfd.evaluation.zero_shot import choose_class, class_scores, query_scores, slide, sliding_windows
from vfd.losses.depth import GradientLoss, SigLoss, gradient_loss


def check_zero_shot(case) -> None:
    images = floats(case['image'])
    height, width = images.shape[-2:]
    patch, crop, stride = (int(case[key]) for key in ('patch', 'crop', 'stride'))
    windows = sliding_windows(height, width, (crop, crop), (stride, stride))
    equal(windows, case['boxes'])

    projection, queries = floats(case['patch_proj']), floats(case['query_features'])

    def scores(crops):
        grid = tuple(side // patch for side in crops.shape[-2:])
        tokens = F.unfold(crops, patch, stride=patch).transpose(1, 2) @ projection.T
        return query_scores(tokens.transpose(1, 2).unflatten(2, grid), queries)

    logits = slide(images, (crop, crop), (stride, stride), scores)
    close(logits, case['logits'])
    size = tuple(case['ori_shape'].tolist())
    resized = F.interpolate(logits, size, mode='bilinear', align_corners=False)[0]
    owners = torch.from_numpy(case['query_idx'])
    _, probabilities = class_scores(resized, owners, float(case['logit_scale']))
    close(probabilities, case['probs'])
    equal(choose_class(probabilities, float(case['prob_thd'])), case['pred'])


def check_depth_probe(case) -> None:
    features, cls_token = floats(case['feat']), floats(case['cls_token'])[..., 0]
    target = floats(case['depth_gt'])
    bins, channels = case['conv_weight'].shape[0], features.shape[1]
    strategies = [key.removeprefix('pred_up_') for key in case if key.startswith('pred_up_')]
    assert strategies
    for name in strategies:
        backbone = dict(
            type='vfd.RegisterViT',
            model_name='vit_tiny_patch16_224',
            depth=1,
            embed_dim=channels,
            num_heads=1,
        )
        probe = DepthProbe(backbone, channels, bins, norm_strategy=name).double()
        probe.bins = torch.linspace(1e-3, 10, bins, dtype=torch.float64)
        probe.conv_depth.weight.data = floats(case['conv_weight'])
        probe.conv_depth.bias.data = floats(case['conv_bias'])
        pred = probe.decode(features, cls_token)
        close(pred, case[f'pred_{name}'])
        up = F.interpolate(pred, target.shape[-2:], mode='bilinear', align_corners=False)
        close(up, case[f'pred_up_{name}'])
        up = up.detach().requires_grad_()

        for warm_up in (0, 1):
            loss = SigLoss(warm_up_iters=warm_up)
            value = loss(up, target)
            close(value, case[f'sig_{name}_warm{warm_up}'], name=name)
            (gradient,) = torch.autograd.grad(value, up)
            close(gradient, case[f'sig_grad_{name}_warm{warm_up}'], name=name)

        close(GradientLoss(legacy_bchw=True)(up, target), case[f'gradloss_raw_BCHW_{name}'])
        image = up[0, 0].detach().requires_grad_()
        value = GradientLoss().loss_weight * gradient_loss(image, target[0, 0])
        close(value, case[f'gradloss_HW_{name}'], name=name)
        value.backward()
        close(image.grad, case[f'gradloss_HW_grad_{name}'], name=name)

        measured = depth_metrics(up[0].detach(), target[0])
        close([measured[key] for key in case['metric_names'].tolist()], case[f'metrics_{name}'])


def check_seg_probe(case) -> None:
    classes, channels = case['conv_weight'].shape[:2]
    losses = [
        dict(type='CrossEntropyLoss', avg_non_ignore=avg, loss_name=f'loss_{avg}') for avg in (False, True)
    ]
    with DefaultScope.overwrite_default_scope('mmseg'):
        head = LinearSegHead(channels, classes, dict(type='BN'), loss_decode=losses).double().train()
    head.bn.weight.data, head.bn.bias.data = floats(case['bn_weight']), floats(case['bn_bias'])
    head.conv_seg.weight.data = floats(case['conv_weight'])
    head.conv_seg.bias.data = floats(case['conv_bias'])
    features = (floats(case['x']),)
    logits = head(features)
    close(logits, case['logits_train'])
    close(head.bn.running_mean, case['running_mean'])
    close(head.bn.running_var, case['running_var'])
    labels = torch.from_numpy(case['label'])[:, None]
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    values = head.loss_by_feat(logits, samples)
    close(values['loss_False'], case['loss_mean_over_all_pixels'])
    close(values['loss_True'], case['loss_mean_over_valid'])
    close(head.eval()(features), case['logits_eval'])


def check_artifact_metrics(case) -> None:
    norms = artifacts.token_norms(floats(case['feats']))
    close(norms.norms, case['norms'])
    close(norms.mean, case['norm_mean'])
    close(norms.std, case['norm_std'])
    close(norms.robust_z, case['robust_z'])
    equal(norms.high, case['outlier_high'])
    equal(norms.low, case['outlier_low'])
    cosine = artifacts.cosines(floats(case['feats']), floats(case['target']))
    close(cosine, case['cos'])
    (key,) = [key for key in case if key.startswith('cos_worst_percentiles_')]
    percentiles = [int(p) for p in key.removeprefix('cos_worst_percentiles_').split('_')]
    worst = artifacts.worst_cosines(cosine)
    close([worst[p] for p in percentiles], case[key])
    each = artifacts.pearson(floats(case['heat']), floats(case['mask']))
    close(each, case['pearson_each'])
    close(each.mean(), case['pearson_mean'])


CHECKS: dict = {
    'zero_shot': check_zero_shot,
    'depth_probe': check_depth_probe,
    'seg_probe': check_seg_probe,
    'artifact_metrics': check_artifact_metrics,
}
