"""Is what was reloaded the student that was exported?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vfd.errors import UserError


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
    live: Callable[[Tensor], Tensor], reloaded: Callable[[Tensor], Tensor], images: Tensor, tolerance: float
) -> Parity:
    """Ask both at two batch sizes.

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
            expected, answer = live(batch), reloaded(batch)
        if not isinstance(expected, Tensor):
            raise UserError(
                f'the student answers with {type(expected).__name__}, not with one tensor: only models whose '
                '"tensor" mode gives one output can be exported'
            )
        if not torch.isfinite(expected).all():
            raise UserError(
                'the student gives values that are not finite: its checkpoint is of a failed training'
            )
        if answer.shape != expected.shape:
            raise UserError(
                f'the export answers {tuple(answer.shape)}, the live student {tuple(expected.shape)}'
            )
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
