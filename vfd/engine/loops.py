"""Training loops that know where they are: a run is resumed in the middle of an epoch, without reading skipped data.

:class:`~vfd.engine.runner.Runner` puts them in the place of mmengine's two loops, whatever way a config names those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import Any

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop
from mmengine.runner.utils import calc_dynamic_intervals

from vfd.registry import LOOPS


class SkipBatch(Exception):
    """Raised inside a training step before anything is updated: the loop goes on with the next batch."""


@dataclasses.dataclass
class LoopState:
    """What is done, so that whatever comes next can be resumed.

    Attributes:
        epoch: finished epochs, as mmengine counts them (0 in iteration-based loops).
        iter: finished iterations.
        data_epoch: current pass over the data.
        batch: finished batches of that pass.
        validated: whether the validation that is due at this point, if any, was run.
    """

    epoch: int = 0
    iter: int = 0
    data_epoch: int = 0
    batch: int = 0
    validated: bool = True


def _train_step(runner: Any, data_batch: Any) -> dict:
    """The model's training step; nothing to report when the batch was skipped."""
    try:
        return runner.model.train_step(data_batch, optim_wrapper=runner.optim_wrapper)
    except SkipBatch:
        return {}


@LOOPS.register_module()
class EpochTrainLoop(EpochBasedTrainLoop):
    """mmengine's epoch-based loop, resumable anywhere. Arguments as there."""

    _epoch: int
    _iter: int

    def __init__(self, runner: Any, dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
        super().__init__(runner, runner.build_train_dataloader(dataloader), max_epochs, **kwargs)
        self.position = LoopState()

    def run(self) -> Any:
        """Launch training."""
        self.runner.call_hook('before_train')
        self.runner.restore_rank_state()
        self._validate()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """The epoch, or what is left of it after resuming."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        start = self.position.batch
        if start:
            self.runner.restore_rng()
        self.dataloader.seek(self._epoch, start)
        for idx, data_batch in enumerate(self.dataloader, start):
            self.run_iter(idx, data_batch)
        epoch = self._epoch + 1
        self.position = LoopState(epoch=epoch, iter=self._iter, data_epoch=epoch, validated=False)
        self.runner.call_hook('after_train_epoch')
        self._epoch = epoch

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """One batch."""
        self.runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        outputs = _train_step(self.runner, data_batch)
        self.position = LoopState(
            epoch=self._epoch, iter=self._iter + 1, data_epoch=self._epoch, batch=idx + 1
        )
        self.runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def _validate(self) -> None:
        """Validate, if it is due here and was not done yet."""
        if self.position.validated:
            return
        self._decide_current_val_interval()
        self.position.validated = True  # before, as the hooks of the validation may save a checkpoint
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and due:
            self.runner.val_loop.run()


@LOOPS.register_module()
class IterTrainLoop(IterBasedTrainLoop):
    """mmengine's iteration-based loop, resumable anywhere. Arguments as there.

    With a finite sampler, a new pass over the data starts without mmengine's pause of two seconds.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        # Not IterBasedTrainLoop's own, which starts the workers before it is known where to start.
        BaseLoop.__init__(self, runner, runner.build_train_dataloader(dataloader))
        self._max_iters = int(max_iters)
        assert self._max_iters == max_iters, f'max_iters is a number of iterations, not {max_iters}'
        self._max_epochs = 1
        self._epoch = 0
        self._iter = 0
        self.val_begin = val_begin
        self.val_interval = val_interval
        self.stop_training = False
        self.runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(
            val_interval, dynamic_intervals
        )
        self.position = LoopState()

    def run(self) -> Any:
        """Launch training."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')  # the whole training is one epoch
        self.runner.restore_rank_state()
        self._validate()
        self.dataloader_iterator = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._validate()
        self.dataloader_iterator.close()  # ends the workers
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _batches(self) -> Generator[Any, None, None]:
        """Batches without end, beginning where the position says."""
        while True:
            self.dataloader.seek(self.position.data_epoch, self.position.batch)
            yield from self.dataloader
            assert self.position.batch, 'the batch sampler gave no batch'
            self.position = dataclasses.replace(
                self.position, data_epoch=self.position.data_epoch + 1, batch=0
            )

    def run_iter(self, data_batch: Any) -> None:
        """One batch."""
        self.runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        outputs = _train_step(self.runner, data_batch)
        self.position = dataclasses.replace(
            self.position, iter=self._iter + 1, batch=self.position.batch + 1, validated=False
        )
        self.runner.call_hook(
            'after_train_iter', batch_idx=self._iter, data_batch=data_batch, outputs=outputs
        )
        self._iter += 1

    def _validate(self) -> None:
        """Validate, if it is due here and was not done yet."""
        if self.position.validated:
            return
        self._decide_current_val_interval()
        self.position.validated = True  # before, as the hooks of the validation may save a checkpoint
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        if self.runner.val_loop is not None and self._iter >= self.val_begin and due:
            self.runner.val_loop.run()
