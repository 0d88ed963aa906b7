"""A data set whose samples do not depend on who fetches them.

Random augmentation draws from the generators of python, numpy and torch. Left alone, their state depends on how many
workers and ranks there are and on everything fetched before, so a run could not be repeated, let alone resumed. Here
every sample is fetched with generators seeded by *which draw it is*: seed of the run, pass over the data, and position
of the draw in that pass, counted over all ranks. Hence

- the number of workers changes nothing;
- R ranks with batch size B see the same batches as one rank with R * B;
- resuming needs the position alone, and skipping to it reads no data.
"""

from __future__ import annotations

import hashlib
import math
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from vfd.engine.bad_data import BadSample, is_bad_data, sample_name
from vfd.errors import UserError

MAX_REPLACEMENTS = 1000


class SampleIndex(NamedTuple):
    """One draw of the sampler."""

    sample: int  # its index in the data set
    epoch: int  # pass over the data
    number: int  # position in that pass, counted over all ranks


class FetchResult(NamedTuple):
    """What a draw gave: a sample, or none and the reason."""

    sample: Any
    bad: list[BadSample]
    error: str | None = None  # ends the run


class Collated(NamedTuple):
    """A batch on its way from a worker to the main process; ``batch`` is None when nothing was left of it."""

    batch: Any
    bad: list[BadSample]
    error: str | None = None


def seed_everything(*key: int) -> None:
    """Seed python's, numpy's and torch's CPU generator from a key of non-negative integers."""
    digest = hashlib.blake2b(struct.pack(f'<{len(key)}Q', *key), digest_size=20).digest()
    for_python, for_torch, for_numpy = struct.unpack('<QQI', digest)
    random.seed(for_python)
    np.random.seed(for_numpy)
    torch.default_generator.manual_seed(for_torch)  # torch.manual_seed would reseed the GPU as well


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Put the global generators back on leaving; a worker process has no use for its own, so there it costs nothing."""
    if get_worker_info() is not None:
        yield
        return
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])


class SampleStream(Dataset):
    """Wraps a data set for :class:`~vfd.engine.loader.StreamLoader`.

    Attributes that are not found here are looked up in, and written to, the wrapped data set, so that hooks and
    visualizers see its ``metainfo``, ``pipeline`` and so on. Indexing with a plain index gives the plain sample.

    Args:
        dataset: a map-style data set (mmengine's, its wrappers, or any with ``__getitem__`` and ``__len__``).
        seed: seed of the run.
        training: a sample that cannot be used is replaced by another one, chosen by its index alone; without, it is
            left out, because a replacement would be counted twice in a metric.
        strict: such a sample ends the run instead.
    """

    def __init__(self, dataset: Any, seed: int, *, training: bool, strict: bool) -> None:
        vars(self).update(dataset=dataset, stream_seed=seed, training=training, strict=strict)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or 'dataset' not in vars(self):  # the second while unpickling in a worker
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[index]

    def __getitems__(self, indices: list) -> list[FetchResult]:
        """The draws of one batch (torch's loader asks for whole batches when a data set can give them)."""
        with preserve_rng_state():
            return [self._fetch(index) for index in indices]

    def _fetch(self, index: Any) -> FetchResult:
        # In evaluation the sampler is left as it is, and its plain index counts for the draw.
        draw = (
            index
            if isinstance(index, SampleIndex)
            else SampleIndex(index, 0, index if isinstance(index, int) else 0)
        )
        bad: list[BadSample] = []
        candidates = _spread(draw.sample, len(self)) if self.training else [draw.sample]
        for attempt, candidate in enumerate(candidates):
            seed_everything(self.stream_seed, draw.epoch, draw.number, attempt)
            try:
                return FetchResult(self.dataset[candidate], bad)
            except Exception as error:
                if is_bad_data(error):
                    bad.append(
                        BadSample(sample_name(self.dataset, candidate), str(error) or type(error).__name__)
                    )
                elif isinstance(error, UserError):
                    return FetchResult(None, bad, str(error))
                else:
                    raise
            if self.strict:
                return FetchResult(
                    None, bad, f'{bad[0].name}: {bad[0].reason} (strict_data=True stops at the first one)'
                )
        if not self.training:
            return FetchResult(None, bad)
        return FetchResult(
            None,
            bad[:1],
            f'{len(bad)} samples tried one after another, of {len(self)}, and none can be used. The first is '
            f'{bad[0].name}: {bad[0].reason}. Check data_root, ann_file and data_prefix of the data set',
        )


def _spread(index: int, length: int) -> Iterator[int]:
    """``index``, then others all over the data set: bad files often lie side by side."""
    stride = max(1, round(length * 0.618))
    while math.gcd(stride, length) != 1:
        stride += 1
    for k in range(min(length, MAX_REPLACEMENTS)):
        yield (index + k * stride) % length


class StreamCollate:
    """Collates the samples of a batch and takes along what was skipped.

    Args:
        collate: the loader's own collate function.
    """

    def __init__(self, collate: Callable[[list], Any]) -> None:
        self.collate = collate

    def __call__(self, fetched: list[FetchResult]) -> Collated:
        """Collate."""
        bad = [sample for item in fetched for sample in item.bad]
        error = next((item.error for item in fetched if item.error is not None), None)
        samples = [item.sample for item in fetched if item.sample is not None]
        if error is not None or not samples:
            return Collated(None, bad, error)
        return Collated(self.collate(samples), bad)
