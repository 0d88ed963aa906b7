"""A batch whose samples have different numbers of rows: boxes of an image, points of a cloud, regions of a mask.

Legend: B samples, N = counts.sum() rows of all samples, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

Array = TypeVar('Array', bound=Any)  # np.ndarray or torch.Tensor; torch is not imported here


@dataclass(frozen=True, eq=False)
class Ragged(Generic[Array]):
    """Rows of B samples, sample after sample, and how many each sample has.

    Example:
        >>> boxes = Ragged.of([np.zeros((3, 4)), np.zeros((0, 4))])
        >>> boxes.values.shape, boxes.counts  # (3, 4), array([3, 0])

    Attributes:
        values: (N, *shape), numpy array or torch tensor.
        counts: (B,) int64 rows of each sample, of the same library as ``values``; N is their sum. A sample without rows
            has 0.

    Raises:
        ValueError: the counts do not add up to N, or one is negative.
    """

    values: Array
    counts: Array

    def __post_init__(self) -> None:
        if (
            self.counts.ndim != 1
            or int(self.counts.sum()) != len(self.values)
            or bool((self.counts < 0).any())
        ):
            raise ValueError(
                f'{len(self.values)} rows of values do not agree with counts {self.counts.tolist()}: expected (B,) '
                'counts, none below 0, whose sum is the number of rows'
            )

    def __len__(self) -> int:
        """Return the number of samples B."""
        return len(self.counts)

    def split(self) -> list[Array]:
        """Split into the rows of each sample: B views (counts[i], *shape) of ``values``."""
        parts, first = [], 0
        for count in self.counts.tolist():
            parts.append(self.values[first : first + count])
            first += count
        return parts

    @classmethod
    def of(cls, samples: Sequence[Array]) -> Ragged[Array]:
        """Join the rows of B >= 1 samples.

        Args:
            samples: (n_i, *shape) each, all numpy arrays or all torch tensors, n_i >= 0.

        Raises:
            ValueError: there is no sample, so that shape and type are not known.
        """
        if len(samples) == 0:
            raise ValueError(
                'a ragged batch needs at least one sample: shape and type are not known otherwise'
            )
        counts = [len(sample) for sample in samples]
        if isinstance(samples[0], np.ndarray):
            return cls(np.concatenate(samples), np.array(counts, np.int64))  # type: ignore[arg-type]
        import torch

        return cls(torch.cat(list(samples)), torch.tensor(counts, device=samples[0].device))  # type: ignore[arg-type]


class RaggedField(NamedTuple):
    """A field of a store that has a number of rows of its own in every record: ``RaggedField('float32', (4,))``.

    Attributes:
        dtype: numpy name.
        shape: of one row.
        is_ragged: a description of a fixed field is ``(dtype, shape)``, and never equals this one.
    """

    dtype: str
    shape: tuple[int, ...]
    is_ragged: bool = True
