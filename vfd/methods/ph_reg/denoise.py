"""Denoised dense features: the mean over shifted and mirrored views of an image, each patch moved back to its place.

Needs no training. On images of any size, as they come from a data preprocessor::

    teacher = DenoisedTeacher(
        source=dict(type='vfd.DenseSource', network=dict(type='vfd.RegisterViT', model_name='vit_base_patch14_dinov2')),
        checkpoint='pretrained')
    features = teacher(images)['dense']  # (B, T, D)

B images, N views of each, V different views in all, a grid of h x w patches, T = h * w, D channels.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from vfd.backbones import RegisterBackbone
from vfd.checkpoints import LoadReport, StateFile
from vfd.errors import UserError, did_you_mean
from vfd.registry import MODELS
from vfd.teachers import Normalization, Teacher

from .views import (
    SAMPLINGS,
    Sampling,
    ViewAverage,
    Views,
    draw_seeds,
    sample_views,
    shift_images,
    token_index,
)

TAP = 'dense'


@MODELS.register_module()
class DenseSource:
    """A transformer with registers (or with none) as the network of a teacher with the tap ``dense``.

    Args:
        network: config of a :class:`vfd.RegisterViT` or :class:`vfd.RegisterCLIP`. ``num_registers`` is 0 unless it is
            set there. It loads files itself: positions of another grid are interpolated by its ``pos_interp``,
            whatever the teacher's ``resize_pos_embed``.
        taps: ``dense``, the patch tokens (B, T, D'), row by row.
        pretrained: take the published weights; :class:`vfd.Teacher` sets it.
    """

    num_classes = None
    reads: frozenset[str] = frozenset()

    def __init__(self, network: dict, taps: Sequence[str] = (TAP,), pretrained: bool = False) -> None:
        kind = MODELS.get(network['type']) if 'type' in network else None
        if not inspect.isclass(kind) or not issubclass(kind, RegisterBackbone):
            raise UserError(
                f'DenseSource: network={network.get("type")!r}; vfd.RegisterViT or vfd.RegisterCLIP'
            )
        own = {'pretrained': True} if pretrained else {}
        self.network: Any = MODELS.build({'num_registers': 0, **network, **own})
        self.name = f'{kind.__name__}:{network["model_name"]}'
        if pretrained:
            self._need_registers('the published weights')
        if tuple(taps) != (TAP,):
            raise UserError(f'{self.name} has the tap "{TAP}", not {", ".join(taps)}')
        self.normalization = Normalization.from_unit(self.network.mean, self.network.std)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that change the features, beside weights and images; part of the teacher's fingerprint."""
        return self.network.settings

    def load(self, file: StateFile) -> LoadReport:
        """Load the network's weights; :class:`vfd.Teacher` calls this.

        Raises:
            UserError: a tensor is missing or of another shape, or the file has another number of registers.
        """
        report = self.network.load_weights(file)
        self._need_registers(report.source)
        return report

    def _need_registers(self, source: str) -> None:
        if self.network.unloaded:
            raise UserError(
                f'{source} without registers: set num_registers=0 in the teacher, not {self.network.num_registers}'
            )

    def forward_taps(self, images: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """See :class:`vfd.teachers.sources.source.Source`."""
        return {TAP: self.network.dense(images)}


@MODELS.register_module()
class DenoisedTeacher(Teacher):
    """A teacher whose dense features are averaged over views of the image (arXiv 2505.21501, section 3).

    With :class:`DenseSource` no view exists as an image: the patches of the image and of its mirror image are embedded
    once, and each view gathers its tokens from them. Of any other source the views are made as images.

    Args:
        source: config of the network: :class:`DenseSource`, or any source of :mod:`vfd.teachers` with a ``stage.<k>``
            tap of a transformer.
        checkpoint: as in :class:`vfd.Teacher`.
        taps: one tap, whose features are (B, T, D) or a map (B, D, h, w).
        num_views: N; 10 as published. 1 gives the features of the image as it is.
        shift_frac: largest shift over the side of the image.
        offset_sampling: ``fps`` or ``uniform``, see :func:`~vfd.methods.ph_reg.views.sample_views`.
        chunk: views that run at once. Memory grows with it; the result does not depend on it. None: on a
            CPU as many as have 2048 patches together (1 at 518 px), 32 elsewhere.
        kwargs: the other settings of :class:`vfd.Teacher` (``dtype``, ``compile``, ``input_size`` ...).

    A call takes ``seed`` (B, 3), see :meth:`extract`.

    Raises:
        UserError: settings that do not fit, or a source without patches.
    """

    reads = frozenset({'seed'})

    def __init__(
        self,
        source: dict,
        checkpoint: str,
        taps: Sequence[str] = (TAP,),
        num_views: int = 10,
        shift_frac: float = 0.15,
        offset_sampling: Sampling = 'fps',
        chunk: int | None = None,
        **kwargs: Any,
    ) -> None:
        if num_views < 1 or (chunk is not None and chunk < 1):
            raise UserError(f'DenoisedTeacher: num_views={num_views}, chunk={chunk}; both are at least 1')
        if not 0 <= shift_frac < 1:
            raise UserError(f'DenoisedTeacher: shift_frac={shift_frac}; a fraction of the side, such as 0.15')
        if offset_sampling not in SAMPLINGS:
            hint = did_you_mean(offset_sampling, SAMPLINGS)
            raise UserError(
                f'DenoisedTeacher: offset_sampling={offset_sampling!r}{hint}; one of {", ".join(SAMPLINGS)}'
            )
        if len(taps) != 1:
            raise UserError(f'DenoisedTeacher: taps={list(taps)}; it averages the features of one tap')
        super().__init__(source, checkpoint, taps, **kwargs)
        self.num_views = num_views
        self.shift_frac = shift_frac
        self.offset_sampling: Sampling = offset_sampling
        self.chunk = chunk
        self.patch_size = _patch_size(self.network, self.source.name)
        dense_of = getattr(self.network, 'dense_of', None)
        self._dense_of = torch.compile(dense_of) if dense_of and kwargs.get('compile') else dense_of

    def extract(self, images: Tensor, seed: Tensor | None = None, **inputs: Any) -> dict[str, Any]:
        """Average over views, see :meth:`vfd.Teacher.extract`.

        Args:
            images: (B, 3, H, W), normalised; H and W are multiples of the patch size.
            seed: (B, 3) whole numbers, which make the views of each image; None draws them from torch's generator.
            **inputs: none, see :attr:`reads`.

        Returns:
            Under the tap (B, T, D), patches row by row.
        """
        views = self.views(images, draw_seeds(len(images)) if seed is None else seed)
        own = self.normalization
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (own.mean, own.std))
        white = (255 - mean) / std
        (tap,) = self.taps
        if isinstance(self.network, RegisterBackbone):
            return {tap: denoise(self.network, images, views, white, self.chunk, self._dense_of)}

        def features(shown: Tensor) -> Tensor:
            output = super(DenoisedTeacher, self).extract(shown)[tap]
            assert isinstance(output, Tensor)
            return output.flatten(2).transpose(1, 2) if output.ndim == 4 else output

        return {tap: denoise_images(features, images, views, white, self.patch_size, self.chunk)}

    def undenoised(self, images: Tensor) -> dict[str, Any]:
        """Compute the features of the images as they are, for comparison; arguments and result as of a call."""
        single = copy.copy(self)
        single.num_views = 1
        return single(images, seed=torch.zeros(len(images), 3, dtype=torch.long))

    @property
    def view_settings(self) -> dict[str, Any]:
        """Settings of the views, in plain types."""
        return {name: getattr(self, name) for name in ('num_views', 'shift_frac', 'offset_sampling')}

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`vfd.Teacher`."""
        return {**super().fingerprint(), **self.view_settings}

    def summary(self) -> dict[str, str]:
        """See :class:`vfd.Teacher`."""
        shown = (
            f'{self.num_views} of an image, shifted by up to {self.shift_frac:.0%} ({self.offset_sampling})'
        )
        return {**super().summary(), 'views': shown}

    def views(self, images: Tensor, seeds: Tensor) -> Views:
        """Draw the views (B, N, ...) of images (B, 3, H, W) from ``seeds`` (B, 3)."""
        grid = _grid(images, self.patch_size)
        each = [
            sample_views(grid, self.num_views, self.shift_frac, row, self.offset_sampling)
            for row in seeds.tolist()
        ]
        return Views(torch.stack([views.shifts for views in each]), torch.stack([v.flips for v in each]))


@torch.no_grad()
def denoise(
    network: RegisterBackbone,
    images: Tensor,
    views: Views,
    fill: Tensor,
    chunk: int | None = None,
    dense_of: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Average over views, which are gathered as tokens; equal views are computed once and count as often as drawn.

    Args:
        network: outputs features of embedded patches.
        images: (B, 3, H, W), normalised.
        views: (B, N, ...).
        fill: (3,), the normalised colour of what is outside an image: white.
        chunk: views that run at once; None as in :class:`DenoisedTeacher`.
        dense_of: the network's method of that name, compiled perhaps.

    Returns:
        (B, T, D), without gradient.
    """
    grid = _grid(images, network.patch_size)
    dense_of = network.dense_of if dense_of is None else dense_of
    table = network.patch_table(images, fill)  # (B, 2T + 1, D)

    def extract(image: list[int], some: Views) -> Tensor:
        index = token_index(grid, some, images.device)
        return dense_of(table[torch.tensor(image, device=images.device)[:, None], index], grid)

    return _average(extract, len(images), grid, views, chunk or _chunk(images.device, grid))


@torch.no_grad()
def denoise_images(
    extract: Callable[[Tensor], Tensor],
    images: Tensor,
    views: Views,
    fill: Tensor,
    patch_size: int,
    chunk: int | None = None,
) -> Tensor:
    """Average as `denoise`, for any function of images: (V, 3, H, W) to (V, T, D). The views are made as images."""

    def extract_views(image: list[int], some: Views) -> Tensor:
        return extract(shift_images(images[image], some, patch_size, fill))

    grid = _grid(images, patch_size)
    return _average(extract_views, len(images), grid, views, chunk or _chunk(images.device, grid))


def _average(
    extract: Callable[[list[int], Views], Tensor],
    images: int,
    grid: tuple[int, int],
    views: Views,
    chunk: int,
) -> Tensor:
    average = ViewAverage(images, grid)
    for image, some, times in _different(views, chunk):
        average.add(extract(image, some).unflatten(1, grid), image, some, times)
    return average.mean()


def _chunk(device: torch.device, grid: tuple[int, int]) -> int:
    """Return how many views at once are fastest (CPU: see benchmarks/results/bench_ph_reg.md)."""
    return min(32, max(1, 2048 // (grid[0] * grid[1]))) if device.type == 'cpu' else 32


def _different(views: Views, chunk: int) -> Iterator[tuple[list[int], Views, list[int]]]:
    """Yield the different views of a batch, some at a time: their images, the views, how often each was drawn."""
    images, count = views.flips.shape
    rows = torch.cat(
        [
            torch.arange(images).repeat_interleave(count)[:, None],
            views.shifts.reshape(-1, 2).cpu(),
            views.flips.reshape(-1, 1).long().cpu(),
        ],
        dim=1,
    )
    different, times = rows.unique(dim=0, return_counts=True)
    for first in range(0, len(different), chunk):
        some = different[first : first + chunk]
        yield (
            some[:, 0].tolist(),
            Views(some[:, 1:3], some[:, 3].bool()),
            times[first : first + chunk].tolist(),
        )


def _grid(images: Tensor, patch_size: int) -> tuple[int, int]:
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        raise UserError(
            f'images of {height}x{width} pixels are no multiple of the patch size {patch_size}: change the crop size '
            f'in the pipeline, for example to {max(1, round(height / patch_size)) * patch_size}.'
        )
    return height // patch_size, width // patch_size


def _patch_size(network: nn.Module, name: str) -> int:
    """Return the patch size of a transformer; everything else has no patches to shift by."""
    size = getattr(network, 'patch_size', None) or getattr(
        getattr(network, 'patch_embed', None), 'patch_size', None
    )
    if isinstance(size, (tuple, list)):
        size = size[0]
    if not isinstance(size, int):
        raise UserError(f'DenoisedTeacher: {name} has no patches of one size; take a vision transformer')
    return cast(int, size)
