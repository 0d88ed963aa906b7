"""Mixing of crops and of their stored labels: Mixup, CutMix, SelfMix. Plain tensors.

N rows are a crop-major batch: row ``c * B + b`` is crop c of image b. Mixing is first drawn, then applied, so that the
same draw can be replayed. Labels may be sparse: the mix of two sparse labels is a sparse label.

Sources: Mixup and CutMix as FKD's released code draws them (arXiv 2112.01528); SelfMix is FerKD's (arXiv 2312.17473,
section 3.4), whose code is not public: all its details here are [ours].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vfd.errors import UserError, did_you_mean
from vfd.losses import SoftLabels, SparseLabels

Box = tuple[int, int, int, int]  # top, left, bottom, right in pixels, the last two outside

KINDS = ('cutmix', 'mixup')
PER = ('batch', 'image')


@dataclass(frozen=True)
class Mix:
    """Mix of N rows.

    Attributes:
        partner: (N,) int64: the row that each row is mixed with.
        share: (N,) float64: weight of the row itself, in its label and, without boxes, in its pixels.
        boxes: (N, 4) int64, see ``Box``: the part that comes from the partner. None blends whole images (Mixup).
    """

    partner: Tensor
    share: Tensor
    boxes: Tensor | None = None

    def images(self, images: Tensor) -> Tensor:
        """Mix images (N, 3, H, W); the given ones stay as they are."""
        partner = self.partner.to(images.device)
        if self.boxes is None:
            share = self.share.to(images).view(-1, 1, 1, 1)
            return images * share + images[partner] * (1 - share)
        mixed = images.clone()
        for top, left, bottom, right in self.boxes.unique(dim=0).tolist():
            rows = (
                (self.boxes == self.boxes.new_tensor([top, left, bottom, right])).all(dim=1).nonzero()[:, 0]
            )
            rows = rows.to(images.device)
            mixed[rows, :, top:bottom, left:right] = images[partner[rows], :, top:bottom, left:right]
        return mixed

    def labels(self, labels: SoftLabels) -> SoftLabels:
        """Mix labels: dense (N, C) stay dense, sparse ones sparse."""
        if isinstance(labels, SparseLabels):
            device = labels.ids.device
            return labels.mixed(self.partner.to(device), self.share.to(device))
        share = self.share.to(labels)[:, None]
        return labels * share + labels[self.partner.to(labels.device)] * (1 - share)


@dataclass(frozen=True)
class MixupCutmix:
    """Mixup or CutMix over the whole batch.

    Attributes:
        mixup: lambda of Mixup is drawn from Beta(mixup, mixup).
        cutmix: lambda of CutMix is drawn from Beta(cutmix, cutmix).
        prob: of mixing a batch at all.
        switch_prob: of Mixup; otherwise CutMix.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    prob: float = 1.0
    switch_prob: float = 0.5

    def __post_init__(self) -> None:
        if min(self.mixup, self.cutmix) <= 0 or not 0 <= self.prob <= 1 or not 0 <= self.switch_prob <= 1:
            raise UserError(f'{self}: expected mixup, cutmix > 0, and both probabilities between 0 and 1')

    def draw(
        self,
        rows: int,
        crops: int,
        size: tuple[int, int],
        rng: Any,
        generator: torch.Generator | None = None,
    ) -> Mix | None:
        """Draw, in the order of the released code.

        Args:
            rows: N.
            crops: not read: partners may be any rows.
            size: (H, W) in pixels.
            rng: numpy's legacy generator: a ``RandomState``, or ``numpy.random`` itself.
            generator: torch's; None is the global one.

        Returns:
            None when the batch stays as it is.
        """
        if rng.rand() >= self.prob:
            return None
        is_mixup = rng.rand() < self.switch_prob
        alpha = self.mixup if is_mixup else self.cutmix
        lam = float(rng.beta(alpha, alpha))
        partner = torch.randperm(rows, generator=generator)
        if is_mixup:
            return Mix(partner, torch.full((rows,), lam, dtype=torch.float64))
        box = draw_box(size, lam, rng)
        return Mix(partner, *_repeated([box], size, rows))


@dataclass(frozen=True)
class SelfMix:
    """Mixing among the crops of one image, so that image and label stay close.

    Attributes:
        kind: ``cutmix`` with lambda from Beta(1, 1), or ``mixup`` with lambda from Beta(0.8, 0.8).
        derange: no crop is its own partner.
        per: lambda and box are drawn once a ``batch``, or once an ``image``.
    """

    kind: Literal['cutmix', 'mixup'] = 'cutmix'
    derange: bool = False
    per: Literal['batch', 'image'] = 'batch'

    def __post_init__(self) -> None:
        for name, value, known in (('kind', self.kind, KINDS), ('per', self.per, PER)):
            if value not in known:
                raise UserError(
                    f'SelfMix: {name}={value!r} is not one of {list(known)}{did_you_mean(str(value), known)}'
                )

    def draw(
        self,
        rows: int,
        crops: int,
        size: tuple[int, int],
        rng: Any,
        generator: torch.Generator | None = None,
    ) -> Mix | None:
        """Draw partners (torch), then lambda and box (numpy).

        Args:
            rows: N = crops * B.
            crops: of an image.
            size: (H, W) in pixels.
            rng: numpy's legacy generator: a ``RandomState``, or ``numpy.random`` itself.
            generator: torch's; None is the global one.

        Returns:
            None with one crop an image, where there is nothing to mix.
        """
        if crops == 1:
            return None
        images = rows // crops
        partner = draw_partners(images, crops, self.derange, generator)
        alpha = 1.0 if self.kind == 'cutmix' else 0.8
        draws = images if self.per == 'image' else 1
        lams = [float(rng.beta(alpha, alpha)) for _ in range(draws)]
        if self.kind == 'mixup':
            share = torch.tensor(lams, dtype=torch.float64).repeat(rows // draws)
            return Mix(partner, share)
        return Mix(partner, *_repeated([draw_box(size, lam, rng) for lam in lams], size, rows))


def draw_partners(images: int, crops: int, derange: bool, generator: torch.Generator | None = None) -> Tensor:
    """Draw a random permutation of the crops of every image, as rows of the crop-major batch.

    Args:
        images: B.
        crops: of an image, at least 2 with ``derange``.
        derange: permutations without a fixed point; all of them are equally likely.
        generator: torch's; None is the global one.

    Returns:
        (crops * B,) int64.
    """
    own = torch.arange(crops)
    order = torch.rand(images, crops, generator=generator).argsort(dim=1)
    while derange and bool((fixed := (order == own).any(dim=1)).any()):
        again = torch.rand(int(fixed.sum()), crops, generator=generator)
        order[fixed] = again.argsort(dim=1)
    return (order.t() * images + torch.arange(images)).flatten()


def draw_box(size: tuple[int, int], lam: float, rng: Any) -> Box:
    """Draw a box around a random centre that covers about ``1 - lam`` of the image; it is cut at the edges.

    Args:
        size: (H, W) in pixels.
        lam: part of the image that stays.
        rng: numpy's legacy generator; the centre's row is drawn first.
    """
    cut = [int(side * math.sqrt(1 - lam)) for side in size]
    centre = [int(rng.randint(side)) for side in size]
    (top, bottom), (left, right) = (
        (max(c - k // 2, 0), min(c + k // 2, side)) for c, k, side in zip(centre, cut, size, strict=True)
    )
    return top, left, bottom, right


def share_outside(box: Box, size: tuple[int, int]) -> float:
    """Return the part of an image (H, W) that a box leaves."""
    top, left, bottom, right = box
    return 1 - (bottom - top) * (right - left) / (size[0] * size[1])


def _repeated(boxes: list[Box], size: tuple[int, int], rows: int) -> tuple[Tensor, Tensor]:
    """Return shares (N,) and boxes (N, 4) of a crop-major batch from one box, or one an image."""
    share = torch.tensor([share_outside(box, size) for box in boxes], dtype=torch.float64)
    times = rows // len(boxes)
    return share.repeat(times), torch.tensor(boxes).repeat(times, 1)
