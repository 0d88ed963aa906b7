"""Is what was reloaded the student that was exported?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vfd.errors import UserError
from vfd.export.student import Answer


@dataclass
class Parity:
    """Errors between live and reloaded outputs, over all batches.

    Attributes:
        max_error: largest absolute difference.
        mean_error: mean absolute difference.
        limit: the largest ``max_error`` allowed.
        batch_sizes: compared at.
    """

    max_error: float
    mean_error: float
    limit: float
    batch_sizes: list[int]


def compare(
    live: Callable[[Tensor], Answer], reloaded: Callable[[Tensor], Answer], images: Tensor, tolerance: float
) -> Parity:
    """Ask both at two batch sizes; where they answer with several tensors, every one counts.

    Args:
        live: the student.
        reloaded: the artefact, loaded in its target.
        images: (B, 3, H, W), normalised.
        tolerance: largest error allowed, as a fraction of the largest live output (at least of 1).

    Raises:
        UserError: outputs of another shape, outputs that are not finite, or an error above the tolerance.
    """
    batches = [images, images[:1] if len(images) > 1 else images.repeat(2, 1, 1, 1)]
    differences: list[Tensor] = []
    largest = 1.0
    for batch in batches:
        with torch.no_grad():
            pairs = _pairs(live(batch), reloaded(batch))
        for expected, answer in pairs:
            differences.append((answer.double() - expected.double()).abs().flatten())
            largest = max(largest, expected.abs().max().item())
    errors = torch.cat(differences)
    parity = Parity(errors.max().item(), errors.mean().item(), tolerance * largest, [len(b) for b in batches])
    if not parity.max_error <= parity.limit:  # also when the answer holds NaN
        raise UserError(
            f'the export differs from the live student by up to {parity.max_error:.3g} (mean '
            f'{parity.mean_error:.3g}); allowed are {parity.limit:.3g}. Nothing was kept. A larger --tolerance '
            'accepts it, where you know why.'
        )
    return parity


def _pairs(expected: Answer, answer: Answer) -> list[tuple[Tensor, Tensor]]:
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


def _tensors(answer: Answer) -> list[Tensor]:
    return list(answer) if isinstance(answer, (tuple, list)) else [answer]


def _written(shapes: list[tuple[int, ...]]) -> str:
    return ', '.join(map(str, shapes))
