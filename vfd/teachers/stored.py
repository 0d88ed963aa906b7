"""A teacher that was asked once: its answers are read from a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.stores import Store

from .stopwatch import Stopwatch
from .teacher import check_inputs


@MODELS.register_module()
class StoredTeacher:
    """Answers from a :class:`vfd.stores.Store` with one record an image, found by the image's file name.

    Stored answers belong to the whole, unaugmented image. A student that sees a random crop of it is pulled to the
    answer for the whole: right for weak augmentation, wrong for strong crops (use the live teacher there).

    Args:
        store: folder of the store.
        data_root: folder to which the store's keys are relative.
        taps: names of the store's fields.
    """

    bn = 'eval'
    has_batch_norm = False

    def __init__(self, store: str, data_root: str, taps: Sequence[str] = ('logits',)) -> None:
        self.path = Path(store)
        self.data_root = Path(data_root).resolve()
        self.taps = tuple(taps)
        self._store = Store(self.path)
        for tap in self.taps:
            if tap not in self._store.fields:
                raise UserError(f'{store} has no field "{tap}"; it has {", ".join(self._store.fields)}')
        self._keys: dict[str, str] = {}  # by image path: resolving a path asks the file system
        self._watch = Stopwatch()

    @property
    def num_classes(self) -> int | None:
        """Width of the stored logits."""
        return self._store.fields['logits'][1][0] if 'logits' in self.taps else None

    @property
    def seconds(self) -> float:
        """Time spent reading so far."""
        return self._watch.seconds

    def bind(self, preprocessor: nn.Module) -> None:
        """Nothing to do: the answers are there already."""

    def train(self) -> StoredTeacher:
        """Nothing to do: there is no network."""
        return self

    def apply_to_tensors(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Nothing to move: records go to the device of the batch."""

    def __call__(
        self, images: Tensor, data_samples: Sequence[Any] | None = None, **inputs: Any
    ) -> dict[str, Tensor]:
        """Read the records of a batch.

        Args:
            images: (B, 3, H, W); only their device matters.
            data_samples: B samples with ``img_path``.
            **inputs: must be None: stored answers cannot be narrowed to patches or boxes.

        Returns:
            One float32 tensor (B, ...) a tap.
        """
        check_inputs(inputs, set(), 'a stored teacher')
        if not data_samples:
            raise UserError(
                'a stored teacher finds its records by data_samples[i].img_path; the batch has no samples'
            )
        with self._watch.run(images.device):
            records = self._store.read([self._key(sample.img_path) for sample in data_samples])
            return {tap: torch.from_numpy(records[tap]).float().to(images.device) for tap in self.taps}

    def _key(self, image: str) -> str:
        """The store's name of an image."""
        if image in self._keys:
            return self._keys[image]
        path = Path(image).resolve()
        key = path.relative_to(self.data_root).as_posix() if path.is_relative_to(self.data_root) else image
        if key not in self._store:
            raise UserError(
                f'{self.path} has no record of {image} (its keys are relative to {self.data_root}). '
                'The images changed after the teacher was asked: make the store again.'
            )
        self._keys[image] = key
        return key

    def fingerprint(self) -> dict[str, Any]:
        """Which answers these are, in plain types."""
        return {
            'source': f'store:{self.path.name}',
            'taps': list(self.taps),
            'store': self._store.fingerprint,
        }

    def summary(self) -> dict[str, str]:
        """The rows that the dry run prints."""
        return {
            'teacher': f'stored answers, {len(self._store)} images',
            'teacher checkpoint': str(self.path),
            'taps': ', '.join(f'{tap} {self._store.fields[tap][1]}' for tap in self.taps),
        }

    def __deepcopy__(self, memo: dict) -> StoredTeacher:
        """A copy of the student shares the teacher."""
        return self
