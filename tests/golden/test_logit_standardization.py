"""Logit standardization against the authors' published code: scores, KD and DKD with and without it, gradients."""

from __future__ import annotations

import re

import numpy as np
import torch
from golden_tools import close

from vfd.losses import DKDLoss, KLDivLogitLoss, standardize_logits

GOLDEN = 'logit_standardization'
TOLERANCE = {'float64': 1e-9, 'float32': 2e-4}


def test_golden(golden_case):
    golden_case.check(CHECKS)


def check_kd(case) -> None:
    """In the precision of the file; float32 ones in float64 as well, where only their own rounding is left."""
    stored = case['logits_s'].dtype
    for dtype in {np.dtype('float64'), stored}:
        inputs = [torch.from_numpy(case[f'logits_{name}'].astype(dtype)) for name in 'st']
        check_losses(case, *inputs, torch.from_numpy(case['target']), TOLERANCE[stored.name])


def check_losses(case, student, teacher, label, tolerance: float) -> None:
    """Every ``{kd,dkd}_{std,plain}`` of the file, its gradient, and its multiples ``kd_vit_x<factor>``."""
    close(standardize_logits(student), case['norm_s'], tolerance, 'norm_s')
    close(standardize_logits(teacher), case['norm_t'], tolerance, 'norm_t')
    temperature, alpha, beta = (float(case[name]) for name in ('T', 'alpha', 'beta'))
    for way in ('std', 'plain'):
        kd = KLDivLogitLoss(temperature, standardize=way == 'std')
        dkd = DKDLoss(temperature, alpha, beta, standardize=way == 'std')
        for name, loss in (
            ('kd', lambda z, kd=kd: kd(z, teacher)),
            ('dkd', lambda z, d=dkd: d(z, teacher, label)),
        ):
            logits = student.clone().requires_grad_()
            value = loss(logits)
            assert value.dtype == student.dtype
            close(value, case[f'{name}_{way}'], tolerance, f'{name}_{way}')
            (gradient,) = torch.autograd.grad(value, logits)
            close(gradient, case[f'{name}_{way}_grad'], tolerance, f'{name}_{way}_grad')
    for key in case:
        if factor := re.fullmatch(r'kd_vit_x(\d+)', key):
            close(int(factor[1]) * KLDivLogitLoss(temperature)(student, teacher), case[key], tolerance, key)


CHECKS = {'kd': check_kd}
