"""The loader of a :class:`~vfd.engine.stream.SampleStream`: counts draws, and starts at any position."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, Sampler

from vfd.engine.bad_data import BadDataLog
from vfd.engine.stream import SampleIndex, SampleStream, StreamCollate
from vfd.errors import BadDataError, UserError


class IndexSampler(Sampler):
    """Yields what a sampler or a batch sampler yields, each index as a :class:`~vfd.engine.stream.SampleIndex`.

    Attributes that are not found here are those of the wrapped sampler.

    Args:
        inner: sampler of indices, or batch sampler of lists of indices.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self._start = (0, 0)

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'inner':
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def base(self) -> Any:
        """The sampler of single indices."""
        return getattr(self.inner, 'sampler', self.inner)

    def seek(self, epoch: int, skip: int) -> None:
        """Say where the next iteration starts: in which pass over the data, and after how many items of it."""
        self._start = (epoch, skip)
        if hasattr(self.base, 'set_epoch'):
            self.base.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        # Read at the first item, not before: torch's loader makes two iterators and uses the second.
        (epoch, skip), self._start = self._start, (0, 0)
        rank, world_size = get_dist_info()
        drawn = 0  # by this rank
        for position, item in enumerate(self.inner):
            indices = item if isinstance(item, list) else [item]
            if position >= skip:
                draws = [
                    SampleIndex(int(i), epoch, (drawn + k) * world_size + rank) for k, i in enumerate(indices)
                ]
                yield draws if isinstance(item, list) else draws[0]
            drawn += len(indices)


class StreamLoader(DataLoader):
    """A data loader rebuilt around a :class:`~vfd.engine.stream.SampleStream`.

    It draws nothing from the global random generators, and records the samples that were skipped. ``seconds`` is the
    time that its user has waited for batches.

    Args:
        loader: the loader as configured.
        seed: seed of the run.
        training: see :class:`~vfd.engine.stream.SampleStream`; a training loader also counts its draws.
        strict: a sample that cannot be used ends the run.
        bad_data: where skipped samples are recorded.

    Raises:
        UserError: the data set is empty, or holds less than one batch with ``drop_last=True``.
    """

    def __init__(
        self, loader: DataLoader, seed: int, *, training: bool, strict: bool, bad_data: BadDataLog
    ) -> None:
        self.bad_data = bad_data
        self.training = training
        self.strict = strict
        self.seconds = 0.0
        self._running: list[list] = []
        own_batches = loader.batch_size is None
        sampler: Any = loader.batch_sampler if own_batches else loader.sampler
        if training:
            sampler = self.draws = IndexSampler(sampler)
        batching: dict[str, Any] = {'batch_sampler': sampler}
        if not own_batches:
            batching = {'sampler': sampler, 'batch_size': loader.batch_size, 'drop_last': loader.drop_last}
        if hasattr(loader, 'in_order'):  # torch >= 2.6
            batching['in_order'] = loader.in_order
        self.stream = stream = SampleStream(loader.dataset, seed, training=training, strict=strict)
        if len(stream) == 0:
            raise UserError(
                f'{_describe(loader.dataset)} is empty. Check its data_root, ann_file and data_prefix'
            )
        super().__init__(
            stream,
            num_workers=loader.num_workers,
            collate_fn=StreamCollate(loader.collate_fn),
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=functools.partial(_start_worker, os.getpid(), loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context,
            generator=torch.Generator().manual_seed(seed),
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
            **batching,
        )
        if len(self) == 0:
            raise UserError(
                f'{_describe(loader.dataset)} has {len(stream)} samples, less than one batch of {loader.batch_size}, '
                'and drop_last=True drops it. Use a smaller batch_size or drop_last=False'
            )

    def seek(self, epoch: int, batches: int) -> None:
        """Say where the next iteration starts: pass over the data, and batches of it (per rank) that are done."""
        self.draws.seek(epoch, batches * (self.batch_size or 1))

    def close(self) -> None:
        """End the workers now, of a loop that was left by an error as well.

        Left to the garbage collector, which breaks up torch's iterator in any order, each worker would be waited for
        in vain for five seconds.
        """
        self._iterator = None
        for running in self._running:
            running.clear()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        given = 0
        running = [super().__iter__()]  # the only reference
        self._running.append(running)
        try:
            while True:
                begun = time.perf_counter()
                collated = next(running[0], None)
                self.seconds += time.perf_counter() - begun
                if collated is None:
                    break
                batch, bad, error = collated
                if error is not None:
                    raise (BadDataError if bad and self.strict else UserError)(error)
                self.bad_data.add(bad)
                if batch is not None:  # a batch of an evaluation may have lost all its samples
                    given += 1
                    yield batch
        finally:
            running.clear()
            self._running.remove(running)
        if not given and not self.training:
            raise UserError(
                f'none of the {len(self.stream)} samples of {_describe(self.stream.dataset)} can be used'
            )


def _describe(dataset: Any) -> str:
    """The data set in an error message."""
    place = [str(value) for key in ('ann_file', 'data_root') if (value := getattr(dataset, key, None))]
    return f'the data set {type(dataset).__name__}' + (f' ({", ".join(place)})' if place else '')


def _start_worker(parent: int, configured: Callable[[int], None] | None, worker_id: int) -> None:
    """Make a worker outlive Ctrl-C and a batch system's SIGTERM, so that the main process can finish its step.

    Workers end when the main process tells them to, or is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(parent,), daemon=True).start()
    if configured is not None:
        configured(worker_id)


def _obey(parent: int) -> None:
    """End this process at a SIGTERM that the main process sent; those of others are sent to the main process too."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
