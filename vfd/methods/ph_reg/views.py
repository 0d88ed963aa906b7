"""Shifted and mirrored views of an image, and how their features go back to the places they came from.

B images, N views of each, V views in all, a grid of h x w patches of side p, D channels. A view is two whole numbers
and a flag: it shows at patch (y, x) what the image has at (y + down, x + right), and white where the image has nothing;
then, with the flag, it is mirrored left to right (arXiv 2505.21501, section 3, and the released code).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Sampling = Literal['fps', 'uniform']
SAMPLINGS: tuple[Sampling, ...] = ('fps', 'uniform')
_POOL = 10  # candidates a view, of which the farthest are taken
_SEEDS = 3  # an image: of the candidates, of the flips, of the first candidate


class Views(NamedTuple):
    """Views of one image (N, ...) or of a batch (B, N, ...).

    Attributes:
        shifts: (..., 2) long, down and right in patches; positive ones move the content up and left.
        flips: (...) bool.
    """

    shifts: Tensor
    flips: Tensor


def draw_seeds(images: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw seeds (B, 3) for the views of ``images`` images, from torch's own generator where none is given."""
    return torch.randint(0, 2**31 - 1, (images, _SEEDS), generator=generator)


def reach(grid: tuple[int, int], shift_frac: float) -> tuple[int, int]:
    """Return the largest shift in patches, down and right: ``round(shift_frac * side)``, halves to even."""
    return round(shift_frac * grid[0]), round(shift_frac * grid[1])


def draw_pool(limits: tuple[int, int], count: int, seed: int) -> np.ndarray:
    """Draw ``count`` random shifts (count, 2), uniform on the whole numbers from -limit to limit.

    Args:
        limits: largest shift down and right.
        count: how many; all downs are drawn before all rights.
        seed: of numpy's default generator.
    """
    generator = np.random.default_rng(seed)
    return np.stack([generator.integers(-limit, limit, count, endpoint=True) for limit in limits], axis=1)


def farthest_points(pool: np.ndarray, count: int, first: int) -> np.ndarray:
    """Return indices (count,) of points that lie far apart: each is the farthest from all before it.

    A pool with fewer than ``count`` different points gives repeated ones.

    Args:
        pool: (P, 2) points.
        count: how many to take.
        first: index of the first one.
    """
    points = pool.astype(np.float64)
    distance = np.full(len(points), np.inf)
    chosen = np.empty(count, np.int64)
    for i in range(count):
        chosen[i] = first
        distance = np.minimum(distance, np.square(points - points[first]).sum(axis=1))
        first = int(distance.argmax())
    return chosen


def first_point(pool_size: int, seed: int) -> int:
    """Draw where `farthest_points` starts, with a generator of torch of its own."""
    generator = torch.Generator().manual_seed(seed)
    return int(torch.randint(0, pool_size, (1,), generator=generator))


def draw_flips(count: int, seed: int) -> np.ndarray:
    """Draw whether each view is mirrored, (count,) of 0 and 1; the first is not."""
    flips = np.random.default_rng(seed).integers(0, 2, count)
    flips[0] = 0
    return flips


def sample_views(
    grid: tuple[int, int],
    count: int,
    shift_frac: float,
    seeds: Sequence[int],
    sampling: Sampling = 'fps',
) -> Views:
    """Draw random views of one image. The first is the image itself.

    Args:
        grid: (h, w) patches of the image.
        count: N.
        shift_frac: largest shift over the side of the grid; 0.15 as published.
        seeds: three numbers: of the shifts, of the flips, of the first shift taken.
        sampling: ``fps`` takes the N of 10 N random shifts that lie farthest apart, corners first, as the released
            code does; ``uniform`` takes N random shifts, as in the paper's text [ours: of whole patches].

    Returns:
        N views.
    """
    limits = reach(grid, shift_frac)
    if sampling == 'fps':
        pool = draw_pool(limits, _POOL * count, int(seeds[0]))
        shifts = pool[farthest_points(pool, count, first_point(len(pool), int(seeds[2])))]
    else:
        shifts = draw_pool(limits, count, int(seeds[0]))
    shifts[0] = 0
    flips = draw_flips(count, int(seeds[1]))
    return Views(torch.from_numpy(shifts).long(), torch.from_numpy(flips).bool())


def shift_images(images: Tensor, views: Views, patch_size: int, fill: Tensor) -> Tensor:
    """Make the views as images.

    Args:
        images: (V, C, H, W), one for each view.
        views: V of them.
        patch_size: p.
        fill: (C,), the colour of what is outside the image.

    Returns:
        (V, C, H, W).
    """
    shown = fill.to(images).view(1, -1, 1, 1).expand_as(images).clone()
    height, width = images.shape[-2:]
    for view, (down, right) in enumerate((views.shifts * patch_size).tolist()):
        to, source = _overlap(height, down), _overlap(height, -down)
        to_x, source_x = _overlap(width, right), _overlap(width, -right)
        shown[view, :, to, to_x] = images[view, :, source, source_x]
    return torch.where(views.flips.to(images.device).view(-1, 1, 1, 1), shown.flip(-1), shown)


def source_index(grid: tuple[int, int], views: Views, device: torch.device | str = 'cpu') -> Tensor:
    """Return where each patch of each view comes from: (V, 2, h, w) long, row and column; -1 outside the image."""
    height, width = grid
    shifts, flips = views.shifts.to(device), views.flips.to(device)
    rows = torch.arange(height, device=device) + shifts[:, :1]  # (V, h)
    across = torch.arange(width, device=device)
    columns = torch.where(flips[:, None], across.flip(0), across) + shifts[:, 1:]  # (V, w)
    rows, columns = rows[:, :, None].expand(-1, -1, width), columns[:, None].expand(-1, height, -1)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return torch.where(inside[:, None], torch.stack([rows, columns], dim=1), -1)


def token_index(grid: tuple[int, int], views: Views, device: torch.device | str = 'cpu') -> Tensor:
    """Index each patch of each view in a table of an image's T patches, those of its mirror image, and white.

    The mirror image's patches are in its own order: the patch that a mirrored view shows of column c is its column
    w - 1 - c.

    Returns:
        (V, T) long, from 0 to 2 T.
    """
    height, width = grid
    rows, columns = source_index(grid, views, device).unbind(1)  # (V, h, w)
    flips = views.flips.to(device).view(-1, 1, 1)
    count = height * width
    place = rows * width + torch.where(flips, width - 1 - columns, columns) + count * flips
    return torch.where(rows < 0, 2 * count, place).flatten(1)


class ViewAverage:
    """The mean, at every patch of every image, of the views' features there.

    Args:
        images: B.
        grid: (h, w).
    """

    def __init__(self, images: int, grid: tuple[int, int]) -> None:
        self.grid = grid
        self.counts = torch.zeros(images, *grid, dtype=torch.long)
        self.sums: Tensor | None = None  # (B, h, w, D), at least float32

    def add(self, features: Tensor, image: Sequence[int], views: Views, times: Sequence[int]) -> None:
        """Put features back to where they came from.

        Args:
            features: (V, h, w, D) of the views; they get no gradient.
            image: V numbers, the image of each view.
            views: V of them.
            times: V numbers, how often each view counts.
        """
        features = features.detach().to(torch.promote_types(features.dtype, torch.float32))
        if self.sums is None:
            self.sums = features.new_zeros(len(self.counts), *self.grid, features.shape[-1])
        height, width = self.grid
        for view, (down, right) in enumerate(views.shifts.tolist()):
            to = (image[view], _overlap(height, -down), _overlap(width, -right))
            seen = features[view].flip(1) if views.flips[view] else features[view]
            self.sums[to].add_(seen[_overlap(height, down), _overlap(width, right)], alpha=times[view])
            self.counts[to] += times[view]

    def mean(self) -> Tensor:
        """Return the means (B, h*w, D), row by row."""
        assert self.sums is not None and bool((self.counts > 0).all()), 'the first view is the image itself'
        return (self.sums / self.counts.to(self.sums)[..., None]).flatten(1, 2)


def _overlap(size: int, shift: int) -> slice:
    """Return the places i of ``size`` for which i + shift is one too."""
    first = min(max(0, -shift), size)
    return slice(first, max(first, size - max(0, shift)))
