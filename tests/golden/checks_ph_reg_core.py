"""PH-Reg: views, what goes back from them, and losses."""

from __future__ import annotations

import numpy as np
import torch
from golden_tools import close, equal, floats
from mmcv.transforms import Compose

from vfd.methods.ph_reg.core import cosine_loss, squared_loss
from vfd.methods.ph_reg.views import (
    ViewAverage,
    Views,
    draw_flips,
    draw_pool,
    farthest_points,
    first_point,
    reach,
    sample_views,
    shift_images,
    source_index,
)
from vfd.registry import TRANSFORMS

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def check_dataset_item(case) -> None:
    size, patch, count = (int(case[key]) for key in ('resolution', 'patch_size', 'counts'))
    check_sampling(case, size // patch, count, case['seeds_offsets_flip_fps'], '', 'selected_offsets')
    image = prepared(case['image_uint8'], size)
    close(image, case['image_normalised'], 1e-6)

    views = sampled(size // patch, count, float(case['shift_frac']), case['seeds_offsets_flip_fps'])
    white = torch.from_numpy((1 - MEAN) / STD)
    images = floats(case['image_normalised']).expand(count, -1, -1, -1)
    close(shift_images(images, views, patch, white), case['shifted_images'], 1e-6)
    equal(source_index((size // patch,) * 2, views), case['shifted_idxs'])


def prepared(pixels: np.ndarray, size: int) -> torch.Tensor:
    """The configs' transforms with the centre crop of evaluation, then the data preprocessor's normalisation."""
    pipeline = Compose(
        [
            TRANSFORMS.build(
                dict(type='mmpretrain.ResizeEdge', scale=size, backend='pillow', interpolation='bicubic')
            ),
            TRANSFORMS.build(dict(type='mmpretrain.CenterCrop', crop_size=size)),
        ]
    )
    bgr = pipeline({'img': pixels[:, :, ::-1], 'img_shape': pixels.shape[:2]})['img']
    rgb = torch.from_numpy(bgr[:, :, ::-1].copy()).permute(2, 0, 1).double()
    mean, std = (torch.from_numpy(255 * value).view(3, 1, 1) for value in (MEAN, STD))
    return (rgb - mean) / std


def sampled(side: int, count: int, shift_frac: float, seeds: np.ndarray) -> Views:
    return sample_views((side, side), count, shift_frac, seeds.tolist())


def check_sampling(case, side: int, count: int, seeds: np.ndarray, prefix: str, selected: str) -> None:
    """The pool, what is taken of it, flips, and all of it together."""
    pool_name = f'{prefix}pool' if f'{prefix}pool' in case else f'{prefix}pool_offsets'
    shift_frac = float(case[f'{prefix}shift_frac'])
    pool = draw_pool(reach((side, side), shift_frac), 10 * count, int(seeds[0]))
    equal(pool[None], case[pool_name])
    chosen = farthest_points(pool, count, first_point(len(pool), int(seeds[2])))
    equal(chosen[None], case[f'{prefix}fps_index'])
    equal(draw_flips(count, int(seeds[1])), case[f'{prefix}flip'])
    views = sampled(side, count, shift_frac, seeds)
    equal(views.shifts, case[f'{prefix}{selected}'])
    equal(views.flips.long(), case[f'{prefix}flip'])


def check_offsets(case) -> None:
    prefixes = [key.removesuffix('cfg_P_counts_seed') for key in case if key.endswith('cfg_P_counts_seed')]
    for prefix in prefixes:
        side, count, seed = (int(value) for value in case[f'{prefix}cfg_P_counts_seed'])
        seeds = np.array([seed, seed + 2000, seed + 1000])
        check_sampling(case, side, count, seeds, prefix, 'selected')


def views_of(case) -> Views:
    """All views of a file's batch, (V, ...)."""
    shifts, flips = (torch.from_numpy(case[key]) for key in ('offsets', 'flips'))
    return Views(shifts.flatten(0, 1), flips.flatten().bool())


def check_denoise(case) -> None:
    views, features = views_of(case), floats(case['features'])
    images, count = case['offsets'].shape[:2]
    grid = tuple(features.shape[1:3])
    equal(source_index(grid, views).unflatten(0, (images, count)), case['shifted_idxs'])
    one_by_one = ViewAverage(len(features), grid)
    one_by_one.add(features, range(len(features)), views, [1] * len(features))
    close(one_by_one.sums, case['restored'], 1e-12)
    equal(one_by_one.counts, case['contribution'])
    average = ViewAverage(images, grid)
    average.add(features, np.repeat(np.arange(images), count).tolist(), views, [1] * len(features))
    close(average.mean(), case['denoised'], 1e-12)


def check_losses(case) -> None:
    teacher = floats(case['teacher'])
    terms = {
        'cos': cosine_loss,
        'mse1': squared_loss,
        'mse02': lambda s, t: squared_loss(s, t, 0.2),
        'total': lambda s, t: cosine_loss(s, t) + squared_loss(s, t),
    }
    for name, term in terms.items():
        student = floats(case['student']).requires_grad_()
        loss = term(student, teacher.clone().requires_grad_())
        close(loss, case[f'loss_{name}'], 1e-10)
        (gradient,) = torch.autograd.grad(loss, student)
        close(gradient, case[f'grad_student_{name}'], 1e-10)


CHECKS = {
    'dataset_item': check_dataset_item,
    'offsets_fps': check_offsets,
    'denoise_features': check_denoise,
    'losses': check_losses,
}
