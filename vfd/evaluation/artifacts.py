"""Artifacts of dense features in numbers: lengths of tokens, distance from a denoised target, heat maps of queries.

What PH-Reg (NeurIPS 2025, arXiv 2505.21501) analyses. Artifact tokens are too long in DINOv2 and DFN, too short in
OpenAI's CLIP and OpenCLIP: both sides are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

OUTLIER = 6.0
PERCENTILES = (50, 70, 90, 95, 99)
_ROUNDING = 1e-6
_MAD_TO_SIGMA = 1.4826  # median absolute deviation to standard deviation, of a normal distribution


@dataclass(frozen=True)
class TokenNorms:
    """Lengths of the patch tokens of B images of T patches.

    Attributes:
        norms: (B, T).
        mean: (B,).
        std: (B,), not the unbiased one.
        robust_z: (B, T), ``(norm - median) / (1.4826 median |norm - median|)`` in the image; 0 where
            all lengths are equal but for rounding [ours].
        high: (B,) tokens with a robust z above 6.
        low: (B,) tokens with a robust z below -6.
    """

    norms: Tensor
    mean: Tensor
    std: Tensor
    robust_z: Tensor
    high: Tensor
    low: Tensor


def token_norms(tokens: Tensor) -> TokenNorms:
    """Measure the lengths of tokens (B, T, D), and which of them stand out in their image."""
    norms = tokens.norm(dim=-1)
    middle = norms.quantile(0.5, dim=1, keepdim=True)
    offset = norms - middle
    spread = _MAD_TO_SIGMA * offset.abs().quantile(0.5, dim=1, keepdim=True)
    # Behind a norm without weights all lengths are equal but for rounding, which is no outlier.
    rounding = (offset.abs() <= _ROUNDING * middle) & (spread <= _ROUNDING * middle)
    robust_z = torch.where(rounding, 0.0, offset / spread)
    return TokenNorms(
        norms,
        norms.mean(1),
        norms.std(1, correction=0),
        robust_z,
        (robust_z > OUTLIER).sum(1),
        (robust_z < -OUTLIER).sum(1),
    )


def cosines(tokens: Tensor, target: Tensor) -> Tensor:
    """Compute the cosine of every token with its target: (B, T, D) each to (B, T)."""
    return torch.cosine_similarity(tokens, target, dim=-1)


def worst_cosines(cosine: Tensor) -> dict[int, float]:
    """Return the cosines at the 50th, 70th, 90th, 95th and 99th percentile of dissimilarity, over all tokens.

    At the 99th, one token of a hundred is less alike to its target than that.

    Args:
        cosine: of any shape.
    """
    shares = torch.tensor([1 - p / 100 for p in PERCENTILES], dtype=cosine.dtype, device=cosine.device)
    values = _quantiles(cosine.flatten(), shares)
    return dict(zip(PERCENTILES, values.tolist(), strict=True))


def _quantiles(values: Tensor, shares: Tensor) -> Tensor:
    """Compute linearly interpolated quantiles of any number of values (``torch.quantile`` takes 16 million)."""
    ordered = values.sort().values
    places = shares * (len(ordered) - 1)
    below = places.floor().long()
    above = (below + 1).clamp(max=len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], places - below)


def pearson(heat: Tensor, mask: Tensor) -> Tensor:
    """Compute Pearson's correlation of heat maps with masks.

    Args:
        heat: (N, H, W): how alike every place is to a query.
        mask: (N, H, W): 1 where the query's object is.

    Returns:
        (N,); NaN where a heat map or a mask is constant.
    """
    centred = [maps.flatten(1) - maps.flatten(1).mean(1, keepdim=True) for maps in (heat, mask.to(heat))]
    product = (centred[0] * centred[1]).sum(1)
    lengths = centred[0].norm(dim=1) * centred[1].norm(dim=1)
    return torch.where(lengths > 0, product / lengths, torch.nan)
