"""Losses of depth maps: what they ignore, what they are blind to, warm-up and the published quirk."""

from __future__ import annotations

import pytest
import torch

from vfd.losses import GradientLoss, SigLoss, gradient_loss, sig_loss


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    pred, target = (
        0.5 + 9 * torch.rand(2, 1, 24, 20, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    return pred.requires_grad_(), target


def test_the_right_depth_costs_nothing(maps):
    _, target = maps
    assert gradient_loss(target[0, 0], target[0, 0]) == 0
    assert sig_loss(target, target, warm_up=True) == 0


def test_a_wrong_scale_costs_the_mean_only(maps):
    _, target = maps
    wrong = (target + 1e-3) * 1.3 - 1e-3
    expected = 0.15**0.5 * torch.log(torch.tensor(1.3, dtype=torch.float64))
    torch.testing.assert_close(sig_loss(wrong, target), expected)
    torch.testing.assert_close(sig_loss(wrong, target, warm_up=True), expected)
    torch.testing.assert_close(gradient_loss(wrong[0, 0], target[0, 0]), torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize('loss', [SigLoss(), GradientLoss(), GradientLoss(legacy_bchw=True)], ids=str)
@pytest.mark.parametrize('invalid', [0.0, -1.0, 10.5, float('nan')])
def test_pixels_without_depth_do_not_matter(maps, loss, invalid):
    pred, target = maps
    target[:, :, 3:9, 4:12] = invalid
    value = loss(pred, target)
    (gradient,) = torch.autograd.grad(value, pred)
    assert value.isfinite() and gradient.isfinite().all() and not gradient[:, :, 3:9, 4:12].any()
    other = pred.detach().clone()
    other[:, :, 3:9, 4:12] = 7
    loss = type(loss)() if not getattr(loss, 'legacy_bchw', False) else loss
    torch.testing.assert_close(loss(other, target), value)


@pytest.mark.parametrize('count', [0, 1])
def test_no_pixel_or_one(maps, count):
    pred, target = maps
    target[:] = 0
    target.flatten()[:count] = 2.0
    value = SigLoss(warm_up_iters=0)(pred, target) + GradientLoss()(pred, target)
    (gradient,) = torch.autograd.grad(value, pred)
    assert value.isfinite() and gradient.isfinite().all() and (value > 0) == (count > 0)


def test_warm_up_counts_training_steps_and_is_saved(maps):
    pred, target = maps
    loss = SigLoss(warm_up_iters=2)
    loss.eval()
    assert loss(pred, target) == sig_loss(pred, target)
    loss.train()
    values = [loss(pred, target).item() for _ in range(3)]
    warm, full = (sig_loss(pred, target, warm_up=flag).item() for flag in (True, False))
    assert values == [warm, warm, full]
    again = SigLoss(warm_up_iters=2)
    again.load_state_dict(loss.state_dict())
    assert again(pred, target).item() == full


def test_the_published_quirk_compares_images(maps):
    pred, target = maps
    assert GradientLoss(legacy_bchw=True)(pred, target) == 0  # two images: nothing two apart
    assert GradientLoss()(pred, target) > 0
    three = [torch.cat([side, side[:1] + 1]) for side in maps]
    assert GradientLoss(legacy_bchw=True)(*three) > 0


def test_each_image_counts_the_same(maps):
    pred, target = maps
    each = [GradientLoss()(pred[i : i + 1], target[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(GradientLoss()(pred, target), (each[0] + each[1]) / 2)


@pytest.mark.parametrize('loss', [SigLoss(), GradientLoss()], ids=['sig', 'gradient'])
def test_gradients(loss):
    generator = torch.Generator().manual_seed(1)
    pred, target = (1 + torch.rand(1, 1, 7, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: loss.eval()(x, target), pred.requires_grad_())
