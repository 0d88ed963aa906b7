"""PH-Reg's views: how they are drawn, what they show, and how their features come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vfd.methods.ph_reg.core import cosine_loss, squared_loss
from vfd.methods.ph_reg.views import (
    ViewAverage,
    Views,
    draw_pool,
    draw_seeds,
    farthest_points,
    reach,
    sample_views,
    shift_images,
    source_index,
    token_index,
)

GRIDS = [(5, 5), (4, 7), (1, 3)]


def some_views(grid: tuple[int, int], count: int = 12, seed: int = 0) -> Views:
    """Shifts of up to one more than the whole grid, so that some show nothing of the image."""
    rng = np.random.default_rng(seed)
    shifts = [rng.integers(-side - 1, side + 2, count) for side in grid]
    return Views(
        torch.from_numpy(np.stack(shifts, axis=1)), torch.from_numpy(rng.integers(0, 2, count)).bool()
    )


# ---------------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize('sampling', ['fps', 'uniform'])
@pytest.mark.parametrize('grid', [(37, 37), (28, 28), (20, 11), (3, 3), (1, 1)])
def test_the_first_view_is_the_image_and_shifts_are_limited(grid, sampling):
    for seed in range(5):
        views = sample_views(grid, 10, 0.15, [seed, seed + 1, seed + 2], sampling)
        assert views.shifts.shape == (10, 2) and views.flips.shape == (10,)
        assert views.shifts[0].tolist() == [0, 0] and not views.flips[0]
        assert (views.shifts.abs() <= torch.tensor(reach(grid, 0.15))).all()


def test_largest_shifts_are_the_published_ones():
    assert reach((37, 37), 0.15) == (6, 6) and reach((28, 28), 0.15) == (4, 4)
    assert reach((10, 30), 0.15) == (2, 4)  # 1.5 and 4.5 go to the even neighbour


def test_farthest_points_take_corners_first():
    """A reading of its own: the next point is the one whose nearest chosen point is farthest away."""
    pool = draw_pool((6, 6), 100, 3)
    chosen = farthest_points(pool, 10, 17)
    assert chosen[0] == 17
    for i in range(1, 10):
        gaps = np.linalg.norm(pool[:, None].astype(float) - pool[chosen[:i]][None], axis=-1).min(axis=1)
        assert chosen[i] == np.flatnonzero(np.isclose(gaps, gaps.max()))[0]
    spread = np.abs(pool[chosen[1:]]).max(axis=1).mean()
    assert spread > np.abs(pool).max(axis=1).mean() + 0.5


def test_small_grids_repeat_shifts():
    views = sample_views((3, 3), 12, 0.3, [0, 1, 2])  # there are nine, and the first drawn one becomes (0, 0)
    assert len(views.shifts) == 12 and len(views.shifts.unique(dim=0)) in (8, 9)


def test_seeds_leave_the_global_generators_alone():
    torch.manual_seed(5)
    np.random.seed(5)
    sample_views((9, 9), 10, 0.3, [1, 2, 3])
    after = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    assert after == (torch.rand(1), np.random.rand())


def test_seeds_come_from_torchs_generator():
    torch.manual_seed(1)
    first, second = draw_seeds(3), draw_seeds(3)
    torch.manual_seed(1)
    assert torch.equal(first, draw_seeds(3)) and not torch.equal(first, second)
    assert first.shape == (3, 3)


# ----------------------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize('grid', GRIDS)
def test_views_show_what_their_index_says(grid):
    """Pixel by pixel, as the paper's text reads."""
    patch, views = 2, some_views(grid)
    height, width = grid[0] * patch, grid[1] * patch
    image = torch.arange(3.0 * height * width).view(3, height, width)
    fill = torch.tensor([-1.0, -2.0, -3.0])
    shown = shift_images(image.expand(len(views.flips), -1, -1, -1), views, patch, fill)
    index = source_index(grid, views)
    for view in range(len(views.flips)):
        down, right = (views.shifts[view] * patch).tolist()
        for y in range(height):
            for x in range(width):
                column = width - 1 - x if views.flips[view] else x
                source = (y + down, column + right)
                inside = 0 <= source[0] < height and 0 <= source[1] < width
                expected = image[:, source[0], source[1]] if inside else fill
                assert torch.equal(shown[view, :, y, x], expected)
                row = index[view, :, y // patch, x // patch].tolist()
                assert row == ([source[0] // patch, source[1] // patch] if inside else [-1, -1])


@pytest.mark.parametrize('grid', GRIDS)
def test_tokens_are_gathered_from_image_mirror_and_white(grid):
    views, patch = some_views(grid), 3
    image = torch.rand(1, 3, grid[0] * patch, grid[1] * patch)
    fill = torch.tensor([7.0, 8.0, 9.0])

    def patches(batch: torch.Tensor) -> torch.Tensor:
        cut = torch.nn.functional.unfold(batch, patch, stride=patch)
        return cut.transpose(1, 2)  # (V, T, 3 p p), row by row

    white = patches(fill.view(1, 3, 1, 1).expand(1, 3, patch, patch))
    table = torch.cat([patches(image), patches(image.flip(-1)), white], dim=1)
    shown = shift_images(image.expand(len(views.flips), -1, -1, -1), views, patch, fill)
    assert torch.equal(table[0][token_index(grid, views)], patches(shown))


# -------------------------------------------------------------------------------------------------------- averaging


def by_index(features: torch.Tensor, image: list[int], views: Views, images: int) -> torch.Tensor:
    """The published way: every patch is written to where its index says, then sums are divided."""
    grid = tuple(features.shape[1:3])
    sums, counts = torch.zeros(images, *grid, features.shape[-1]), torch.zeros(images, *grid, 1)
    for view, index in enumerate(source_index(grid, views)):
        for y in range(grid[0]):
            for x in range(grid[1]):
                row, column = index[:, y, x].tolist()
                if row >= 0:
                    sums[image[view], row, column] += features[view, y, x]
                    counts[image[view], row, column] += 1
    return (sums / counts).flatten(1, 2)


@pytest.mark.parametrize('grid', GRIDS)
def test_the_mean_is_that_of_index_maps(grid):
    drawn = [sample_views(grid, 6, 0.6, [s, s, s]) for s in range(2)]
    views = Views(torch.cat([v.shifts for v in drawn]), torch.cat([v.flips for v in drawn]))
    image, features = [0] * 6 + [1] * 6, torch.randn(12, *grid, 5, dtype=torch.float64)
    average = ViewAverage(2, grid)
    average.add(features, image, views, [1] * 12)
    assert (average.counts >= 1).all()
    torch.testing.assert_close(average.mean(), by_index(features, image, views, 2).double())


def test_multiplicity_counts_a_view_several_times():
    grid, views = (4, 5), Views(torch.tensor([[0, 0], [1, -2]]), torch.tensor([False, True]))
    features = torch.randn(2, *grid, 3)
    once, thrice = ViewAverage(1, grid), ViewAverage(1, grid)
    once.add(features[[0, 1, 1, 1]], [0] * 4, Views(*(part[[0, 1, 1, 1]] for part in views)), [1] * 4)
    thrice.add(features, [0, 0], views, [1, 3])
    assert torch.equal(once.counts, thrice.counts)
    torch.testing.assert_close(once.mean(), thrice.mean())


def test_half_precision_features_are_summed_in_float32():
    average = ViewAverage(1, (2, 2))
    views = Views(torch.zeros(300, 2, dtype=torch.long), torch.zeros(300, dtype=torch.bool))
    average.add(torch.full((300, 2, 2, 1), 1.01, dtype=torch.bfloat16), [0] * 300, views, [1] * 300)
    assert average.mean().dtype == torch.float32
    torch.testing.assert_close(average.mean(), torch.full((1, 4, 1), 1.01).bfloat16().float())


# ----------------------------------------------------------------------------------------------------------- losses


def test_losses_are_computed_in_float32_and_spare_the_teacher():
    student = (100 * torch.randn(2, 5, 8)).bfloat16().requires_grad_()
    teacher = (100 * torch.randn(2, 5, 8)).bfloat16().requires_grad_()
    for loss in (cosine_loss, squared_loss):
        value = loss(student, teacher)
        assert value.dtype == torch.float32
        value.backward()
    assert student.grad is not None and teacher.grad is None


def test_losses_of_equal_and_zero_features():
    features = torch.randn(2, 5, 8, dtype=torch.float64)
    assert squared_loss(features, features) == 0 and cosine_loss(features, features).abs() < 1e-7
    zero = torch.zeros(2, 5, 8, requires_grad=True)
    loss = cosine_loss(zero, torch.ones(2, 5, 8)) + squared_loss(zero, torch.ones(2, 5, 8), 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(1.2) and torch.isfinite(zero.grad).all()


@pytest.mark.parametrize('loss', [cosine_loss, squared_loss])
def test_gradients(loss):
    student, teacher = (torch.randn(2, 3, 4, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.requires_grad_())
