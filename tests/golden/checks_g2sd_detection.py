"""G2SD, detection: checks of the golden files."""

from __future__ import annotations

import re

import numpy as np
from golden_tools import close, floats

from vfd.engine.layer_decay import layer_id
from vfd.losses.feature_richness import FeatureRichnessLoss
from vfd.methods.g2sd.detection import FeatureAdapter


def check_det_frs(case) -> None:
    """The weighted losses at every stored iteration, and all gradients at the last of them."""
    levels = range(len(case['sizes']))
    weights = case.under('w/')
    teacher_channels, student_channels = weights['conv.0.weight'].shape[:2]
    assert student_channels == int(case['adapter_in'])
    assert int(case['seed']) >= 0
    adapter = FeatureAdapter(student_channels, teacher_channels, len(levels)).double()
    adapter.load_state_dict({name: floats(value) for name, value in weights.items()})

    stored = {
        name: [floats(case[f'{name}_{k}']) for k in levels]
        for name in ('feat_s', 'feat_t', 'logit_s', 'logit_t')
    }
    for k, (height, width) in enumerate(case['sizes'].tolist()):
        assert all(values[k].shape[-2:] == (height, width) for values in stored.values())
    features = [x.requires_grad_() for x in stored['feat_s']]
    logits = [x.requires_grad_() for x in stored['logit_s']]
    loss = FeatureRichnessLoss()

    iterations = sorted(int(m[1]) for key in case if (m := re.fullmatch(r'it(\d+)_feat_loss', key)))
    assert iterations
    for iteration in iterations:
        adapted = adapter(features)
        terms = loss(adapted, stored['feat_t'], logits, stored['logit_t'], iteration)
        for name, ours in zip(('feat', 'cls'), terms, strict=True):
            close(ours, case[f'it{iteration}_{name}_loss'], name=f'it{iteration} {name}')
    sum(terms).backward()  # of the last iteration
    for k in levels:
        close(adapted[k], case[f'adapted_{k}'], name=f'adapted {k}')
        close(features[k].grad, case[f'dfeat_{k}'], name=f'dfeat {k}')
        close(logits[k].grad, case[f'dlogit_{k}'], name=f'dlogit {k}')
    close(adapter.conv[0].weight.grad, case['dadapter_w0'], name='dadapter_w0')


def check_det_lr_decay(case) -> None:
    """Factors of the learning rate by parameter name."""
    depth, rate = int(case['num_layers']), float(case['lr_decay_rate'])
    ours = [rate ** (depth + 1 - layer_id(name, depth)) for name in case['names'].tolist()]
    np.testing.assert_allclose(ours, case['factor'], rtol=1e-12)


CHECKS = {'det_frs': check_det_frs, 'det_lr_decay': check_det_lr_decay}
