"""A teacher whose features were computed once and are read from a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vfd.errors import UserError
from vfd.registry import MODELS
from vfd.stores import Store
from vfd.stores.ragged import Ragged
from vfd.stores.sample_key import sample_key

from .card import TeacherCard
from .inputs import check_inputs
from .stopwatch import Stopwatch


@MODELS.register_module()
class StoredTeacher:
    """Features from a :class:`vfd.stores.Store` with one record a sample, found by its key.

    The key is the sample's own ``sample_key``, else its path relative to ``data_root``; symbolic links are not resolved
    (:mod:`vfd.stores.sample_key`).

    Stored features belong to the whole, unaugmented image, also where the student gets a random crop of it: right for
    weak augmentation, wrong for strong crops (use :class:`vfd.Teacher` there).

    Args:
        store: folder of the store.
        data_root: folder to which the store's keys are relative, as the data set names it.
        taps: names of the store's fields.
    """

    bn = 'eval'
    has_batch_norm = False
    card = TeacherCard()
    reads: Set[str] = frozenset()

    def __init__(self, store: str, data_root: str = '', taps: Sequence[str] = ('logits',)) -> None:
        self.path = Path(store)
        self.data_root = str(data_root)
        self.taps = tuple(taps)
        self._store = Store(self.path)
        for tap in self.taps:
            if tap not in self._store.fields:
                raise UserError(f'{store} has no field "{tap}"; it has {", ".join(self._store.fields)}')
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
        """Do nothing: the features are stored already."""

    def train(self) -> StoredTeacher:
        """Do nothing: there is no network."""
        return self

    def apply_to_tensors(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Do nothing: records go to the device of the batch."""

    def set_bn(self, mode: Literal['eval', 'train'] | None) -> None:
        """Do nothing: there is no network."""
        assert mode in (None, 'eval'), mode

    def __call__(
        self, images: Any, data_samples: Sequence[Any] | None = None, **inputs: Any
    ) -> dict[str, Any]:
        """Read the records of a batch.

        Args:
            images: (B, 3, H, W), or whatever else the inputs of the student are; only their device matters.
            data_samples: B samples with ``img_path`` or a ``sample_key``.
            **inputs: must be None: stored features cannot be narrowed to patches or boxes.

        Returns:
            One float32 tensor (B, ...) a tap, or a :class:`vfd.stores.Ragged` of one.

        Raises:
            UserError: a sample without a record or a key, or no samples.
        """
        check_inputs(inputs, self.reads, 'a stored teacher', images)
        if not data_samples:
            raise UserError(
                'a stored teacher finds its records by the keys of data_samples; the batch has no samples'
            )
        devices = (leaf.device for leaf in tree_leaves(images) if isinstance(leaf, Tensor))
        device = next(devices, torch.device('cpu'))
        with self._watch.run(device):
            keys = [sample_key(sample, self.data_root) for sample in data_samples]
            if (missing := next((key for key in keys if key not in self._store), None)) is not None:
                raise UserError(self._not_there(missing))
            records = self._store.read(keys)
            return {tap: _tensors(records[tap], device) for tap in self.taps}

    def _not_there(self, key: str) -> str:
        known = f', such as "{self._store.keys[0]}",' if len(self._store) else ''
        root = (
            f' are relative to data_root={self.data_root}' if self.data_root else ' are those of the samples'
        )
        return (
            f'{self.path} has no record of "{key}". Its {len(self._store)} keys{known}{root} (symbolic links are not '
            'resolved; stores of older versions resolved them). If data_root is that of the data set, the images '
            'changed after the store was written: write it again.'
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the stored features, in plain types."""
        return {
            'source': f'store:{self.path.name}',
            'taps': list(self.taps),
            'store': self._store.fingerprint,
        }

    def summary(self) -> dict[str, str]:
        """Return the rows that the dry run prints."""
        return {
            'teacher': f'stored features, {len(self._store)} images',
            'teacher checkpoint': str(self.path),
            'taps': ', '.join(f'{tap} {self._store.fields[tap][1]}' for tap in self.taps),
        }

    def __deepcopy__(self, memo: dict) -> StoredTeacher:
        """Return the teacher itself: a copy of the student shares it."""
        return self


def _tensors(records: Any, device: Any) -> Tensor | Ragged[Tensor]:
    """Return numpy's records, fixed or ragged, as float32 on a device; counts of rows as they are."""
    if isinstance(records, Ragged):
        counts = torch.from_numpy(records.counts).to(device)
        return Ragged(torch.from_numpy(records.values).float().to(device), counts)
    return torch.from_numpy(records).float().to(device)
