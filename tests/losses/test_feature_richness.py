"""The feature-richness loss against the formula written out, at its edges, and its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vfd.losses import FeatureRichnessLoss
from vfd.losses.feature_richness import feature_term, objectness_term, richness

LEVELS = ((5, 7), (3, 4))


def drawn(channels: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, channels, *size, generator=generator, dtype=torch.float64).requires_grad_()
        for size in LEVELS
    ]


@pytest.fixture
def batch() -> tuple[list[Tensor], ...]:
    return drawn(4, 0), drawn(4, 1), drawn(3, 2), drawn(3, 3)


def written_out(maps, target_maps, logits, target_logits) -> tuple[float, float]:
    """Both terms, place by place."""
    feature = objectness = 0.0
    for f, g, s, t in zip(maps, target_maps, logits, target_logits, strict=True):
        p, q = s.sigmoid(), t.sigmoid()
        top_f = top_o = bottom = 0.0
        for b in range(f.shape[0]):
            for y in range(f.shape[2]):
                for x in range(f.shape[3]):
                    m = max(q[b, :, y, x].tolist())
                    bottom += m
                    top_f += m * sum((g[b, c, y, x] - f[b, c, y, x]).item() ** 2 for c in range(f.shape[1]))
                    for a in range(s.shape[1]):
                        p_a, q_a = p[b, a, y, x], q[b, a, y, x]
                        top_o -= m * (q_a * p_a.log() + (1 - q_a) * (1 - p_a).log()).item()
        feature += top_f / bottom
        objectness += top_o / bottom
    return feature, objectness


def test_values(batch):
    feature, objectness = written_out(*batch)
    ours = FeatureRichnessLoss()(*batch, iteration=500)
    torch.testing.assert_close(ours[0].item(), 0.001 * feature, rtol=1e-9, atol=0)
    torch.testing.assert_close(ours[1].item(), 0.1 * objectness, rtol=1e-9, atol=0)


@pytest.mark.parametrize(('iteration', 'factor'), [(0, 0.0), (1, 0.02), (25, 0.5), (50, 1.0), (51, 1.0)])
def test_warmup(batch, iteration, factor):
    full = FeatureRichnessLoss(2.0, 3.0, warmup_iters=0)(*batch, iteration=0)
    ours = FeatureRichnessLoss(2.0, 3.0, warmup_iters=50)(*batch, iteration=iteration)
    for value, whole in zip(ours, full, strict=True):
        torch.testing.assert_close(value, factor * whole)


def test_richness_is_the_best_anchor(batch):
    for logits in batch[3]:
        mask = richness(logits)
        torch.testing.assert_close(mask, logits.sigmoid().max(dim=1).values)
        assert not mask.requires_grad


def test_gradients_reach_the_student_alone(batch):
    loss = FeatureRichnessLoss(1.0, 1.0, warmup_iters=0)
    sum(loss(*batch, iteration=0)).backward()
    maps, target_maps, logits, target_logits = batch
    assert all(x.grad is not None and x.grad.any() for x in (*maps, *logits))
    assert all(x.grad is None for x in (*target_maps, *target_logits))


def test_gradcheck(batch):
    maps, target_maps, logits, target_logits = batch
    mask = richness(target_logits[1])
    assert torch.autograd.gradcheck(lambda f: feature_term(f, target_maps[1], mask), maps[1])
    assert torch.autograd.gradcheck(lambda s: objectness_term(s, target_logits[1], mask), logits[1])


def test_where_the_teacher_sees_nothing_nothing_is_learnt(batch):
    maps, target_maps, logits, target_logits = batch
    seen = [torch.full_like(x, -200.0) for x in target_logits]
    seen[0][:, :, 2, 3] = 5.0
    sum(FeatureRichnessLoss(1.0, 1.0, 0)(maps, target_maps, logits, seen, 0)).backward()
    gradient = maps[0].grad.abs().sum((0, 1))
    assert gradient[2, 3] > 1e-3
    gradient[2, 3] = 0
    assert gradient.max() < 1e-30


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize('value', [1e4, -1e4])
def test_saturated_logits(dtype, value):
    """Half precision of the student is compared in the teacher's precision; logarithms end at -100."""
    logits = torch.full((1, 3, 2, 2), value, dtype=dtype, requires_grad=True)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    target = torch.zeros(1, 3, 2, 2, dtype=wide)
    features = torch.full((1, 300, 2, 2), 200.0, dtype=dtype, requires_grad=True)  # squares overflow in half
    ours = FeatureRichnessLoss(1.0, 1.0, 0)(
        [features], [torch.zeros(1, 300, 2, 2, dtype=wide)], [logits], [target], 0
    )
    assert ours[1].item() == pytest.approx(3 * 0.5 * 100)
    assert ours[0].item() == pytest.approx(300 * 200.0**2)
    sum(ours).backward()
    assert logits.grad.isfinite().all() and features.grad.isfinite().all()


def test_a_mask_that_underflows_gives_zero():
    maps = [torch.randn(1, 2, 3, 3, requires_grad=True)]
    logits = [torch.randn(1, 3, 3, 3, requires_grad=True)]
    nothing = [torch.full((1, 3, 3, 3), -1e4)]
    ours = FeatureRichnessLoss(1.0, 1.0, 0)(maps, [torch.randn(1, 2, 3, 3)], logits, nothing, 0)
    assert [value.item() for value in ours] == [0.0, 0.0]
    sum(ours).backward()
    assert maps[0].grad.isfinite().all() and logits[0].grad.isfinite().all()


def test_under_autocast(batch):
    plain = [[x.detach().float() for x in part] for part in batch]
    expected = FeatureRichnessLoss()(*plain, iteration=500)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        ours = FeatureRichnessLoss()(*plain, iteration=500)
    for value, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=0)
