"""Is what was reloaded the student that was exported?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from vfd.errors import UserError
from vfd.export.example_inputs import named_inputs
from vfd.export.student import OutputSpec, Tensors


@dataclass
class Parity:
    """Errors between live and reloaded outputs, over all batches.

    Attributes:
        max_error: largest absolute difference; of a mask the share of pixels that differ.
        mean_error: mean absolute difference.
        limit: the largest ``max_error`` allowed. Where outputs have names, these three are of the one nearest to its
            limit.
        batch_sizes: compared at.
        input_shapes: of each batch; of several inputs that of the first.
        outputs: name -> the three numbers, where outputs have names.
    """

    max_error: float
    mean_error: float
    limit: float
    batch_sizes: list[int]
    input_shapes: list[list[int]]
    outputs: dict[str, dict[str, float]] = field(default_factory=dict)


def two_batches(images: Tensor) -> list[Tensor]:
    """The batch, and one of another size: its first image, or two of it."""
    return [images, images[:1] if len(images) > 1 else images.repeat(2, 1, 1, 1)]


def compare(
    output: OutputSpec, reloaded: Callable[[Any], Tensors], batches: Sequence[Any], tolerance: float
) -> Parity:
    """Run both on some batches; where they answer with several tensors, every one counts.

    Args:
        output: of the live student.
        reloaded: the artefact, loaded in its target.
        batches: normalised images (B, 3, H, W), or other inputs.
        tolerance: largest error allowed, as a fraction of the largest live output (at least of 1).

    Raises:
        UserError: outputs of another shape, outputs that are not finite, or an error above the tolerance.
    """
    differences: dict[str, list[Tensor]] = {}
    largest: dict[str, float] = {}
    for batch in batches:
        with torch.no_grad():
            pairs = _pairs(output.ask(batch), reloaded(batch))
        names = output.names[: len(pairs)] or ('',) * len(pairs)
        for name, (expected, answer) in zip(names, pairs, strict=True):
            differences.setdefault(name, []).append(_difference(expected, answer))
            peak = expected.abs().max().item() if expected.numel() and expected.dtype != torch.bool else 1.0
            largest[name] = max(largest.get(name, 1.0), peak)
    if output.names and not any(
        len(errors) for name in output.names[1:] for errors in differences.get(name, ())
    ):
        print_log(
            'the student finds no object in the images, so that there is nothing to compare: name others with --images',
            logger='current',
            level=logging.WARNING,
        )
    found = {name: _errors(differences[name], tolerance * largest[name]) for name in differences}
    worst = max(found, key=lambda name: found[name]['max_error'] / max(found[name]['limit'], 1e-30))
    tensors = [next(iter(named_inputs(batch).values())) for batch in batches]
    parity = Parity(
        **found[worst],
        batch_sizes=[len(tensor) for tensor in tensors],
        input_shapes=[list(tensor.shape) for tensor in tensors],
        outputs=found if output.names else {},
    )
    if not all(errors['max_error'] <= errors['limit'] for errors in found.values()):  # also of NaN
        what = f' in its {worst}' if worst else ''
        raise UserError(
            f'the export differs from the live student{what} by up to {parity.max_error:.3g} (mean '
            f'{parity.mean_error:.3g}); allowed are {parity.limit:.3g}. Nothing was kept. A larger --tolerance '
            'accepts it, where you know why.'
        )
    return parity


def _difference(expected: Tensor, answer: Tensor) -> Tensor:
    """Absolute differences (n,); of masks (N, H, W) the share of pixels that differ in each."""
    if expected.dtype == torch.bool:
        return (expected != answer.bool()).double().flatten(1).mean(1)
    return (answer.double() - expected.double()).abs().flatten()


def _errors(differences: list[Tensor], limit: float) -> dict[str, float]:
    errors = torch.cat(differences)
    if not errors.numel():  # no object in any image
        return {'max_error': 0.0, 'mean_error': 0.0, 'limit': limit}
    return {'max_error': errors.max().item(), 'mean_error': errors.mean().item(), 'limit': limit}


def _pairs(expected: Tensors, answer: Tensors) -> list[tuple[Tensor, Tensor]]:
    """Expected and given tensors, side by side.

    Raises:
        UserError: they have other shapes, or what is expected is not finite or no tensors at all.
    """
    wanted, given = _tensors(expected), _tensors(answer)
    if not wanted or not all(isinstance(tensor, Tensor) for tensor in wanted):
        raise UserError(
            f'the student answers with {type(expected).__name__}, not with tensors: only models whose "tensor" mode '
            'gives tensors can be exported. Its backbone may be: --part backbone'
        )
    if not all(torch.isfinite(tensor).all() for tensor in wanted):
        raise UserError(
            'the student gives values that are not finite: its checkpoint is of a failed training'
        )
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (given, wanted)]
    if shapes[0] != shapes[1]:
        raise UserError('the export answers {}, the live student {}'.format(*map(_written, shapes)))
    return list(zip(wanted, given, strict=True))


def _tensors(answer: Tensors) -> list[Tensor]:
    return list(answer) if isinstance(answer, (tuple, list)) else [answer]


def _written(shapes: list[tuple[int, ...]]) -> str:
    return ', '.join(map(str, shapes))
