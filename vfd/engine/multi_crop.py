"""Epochs of training on several crops of an image at a time, and their learning rates.

FKD (arXiv 2112.01528) counts one pass over the images with ``num_crops`` crops of each as ``num_crops`` epochs. The
last ``num_crops`` epochs (and a warm-up) are single-crop passes, each an epoch. The learning rate is constant within
a pass.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

from mmengine.dataset import RepeatDataset
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType, _ParamScheduler

from vfd.engine.loader import StreamLoader
from vfd.engine.loops import EpochTrainLoop, LoopState
from vfd.errors import UserError
from vfd.registry import DATASETS, LOOPS, PARAM_SCHEDULERS


class Pass(NamedTuple):
    """One pass over the images: the epoch it begins with, and the crops it takes of an image (= epochs it counts)."""

    epoch: int
    crops: int


def crop_passes(max_epochs: int, num_crops: int, warmup: int = 0) -> list[Pass]:
    """The passes of a training.

    Args:
        max_epochs: E.
        num_crops: K.
        warmup: single-crop epochs at the beginning.

    Returns:
        The passes in order: ``warmup`` with one crop, then K crops while the epoch is below E - K, then one crop.
    """
    passes: list[Pass] = []
    epoch = 0
    while epoch < max_epochs:
        crops = 1 if epoch < warmup or epoch >= max_epochs - num_crops else num_crops
        passes.append(Pass(epoch, crops))
        epoch += crops
    return passes


def crops_of(dataset: Any) -> int:
    """Crops of an image that a data set gives at a time.

    Raises:
        UserError: it is no data set of several crops.
    """
    if not hasattr(dataset, 'with_crops'):
        raise UserError(
            f'MultiCropEpochLoop: {type(dataset).__name__} does not give several crops of an image; '
            'train_dataloader.dataset needs type="vfd.StoredCropDataset"'
        )
    return dataset.num_crops


@DATASETS.register_module()
class EqualLengthDataset(RepeatDataset):
    """Images repeated and cut to the length of the passes of another training: data of its supervised baseline.

    Args:
        dataset: config of the images.
        length: samples of a pass.
        num_crops: epochs that a pass counts as in a :class:`MultiCropEpochLoop`; an item is one sample all the same.
        single_length: samples of a single-crop pass of that loop.
    """

    def __init__(
        self, dataset: Any, length: int, num_crops: int = 1, single_length: int | None = None
    ) -> None:
        super().__init__(dataset, times=1)
        self.length, self.num_crops, self.single_length = length, num_crops, single_length

    def __len__(self) -> int:
        return self.length

    def with_crops(self, num_crops: int) -> EqualLengthDataset:
        """The samples of a single-crop pass."""
        assert num_crops == 1 and self.single_length is not None
        other = copy.copy(self)
        other.num_crops, other.length = 1, self.single_length
        return other


@LOOPS.register_module()
class MultiCropEpochLoop(EpochTrainLoop):
    """FKD's accounting of epochs, resumable in the middle of any pass.

    The training loader gives B images with K crops; single-crop passes load K * B images, so that a batch has as many
    samples. Schedulers with ``by_epoch=True`` step K times after a pass of K crops. A validation or a checkpoint is due
    after a pass that completes a multiple of ``val_interval``, or of the ``interval`` of ``vfd.CheckpointHook``::

        train_cfg = dict(type='vfd.MultiCropEpochLoop', max_epochs=300)

    Args:
        runner: the runner.
        dataloader: config of the training loader; its data set is a ``vfd.StoredCropDataset``.
        max_epochs: E.
        single_crop_warmup: single-crop epochs at the beginning; 0 in FKD's script for CNNs, 5 in the one for
            transformers.
        kwargs: ``val_begin``, ``val_interval``, ``dynamic_intervals`` as in mmengine.

    Raises:
        UserError: the data set does not give several crops, or the warm-up is longer than the training.
    """

    def __init__(
        self, runner: Any, dataloader: Any, max_epochs: int, single_crop_warmup: int = 0, **kwargs: Any
    ) -> None:
        self.position = LoopState()
        self.passes = [Pass(0, 0)]  # until the number of crops is known
        self.pass_epochs = 1  # that the last pass counted as
        self._loaders: dict[int, StreamLoader] = {}
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        loader = self._loaders.pop(0)
        dataset = loader.stream.dataset
        if not 0 <= single_crop_warmup <= max_epochs:
            raise UserError(
                f'MultiCropEpochLoop: single_crop_warmup={single_crop_warmup} of max_epochs={max_epochs}'
            )
        crops = crops_of(dataset)
        self._loaders[crops] = loader
        if crops > 1:
            samples = 1 if isinstance(dataset, EqualLengthDataset) else crops  # of an item
            assert loader.batch_size is not None, 'a batch_sampler says nothing of single-crop batches'
            single = {
                **dataloader,
                'dataset': dataset.with_crops(1),
                'batch_size': loader.batch_size * samples,
            }
            self._loaders[1] = runner.build_train_dataloader(single)
        self.passes = crop_passes(max_epochs, crops, single_crop_warmup)
        self._max_iters = sum(len(self._loaders[each.crops]) for each in self.passes)

    @property
    def dataloader(self) -> StreamLoader:
        """The loader of the pass that the position is in."""
        return self._loaders[self._current().crops]

    @dataloader.setter
    def dataloader(self, loader: StreamLoader) -> None:
        """mmengine's loop sets it while it is built."""
        self._loaders[0] = loader

    def run_epoch(self) -> None:
        """The pass, or what is left of it after resuming."""
        (begin, crops), loader = self._current(), self.dataloader
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        start = self.position.batch
        if start:
            self.runner.restore_rng()
        loader.seek(begin, start)
        for idx, data_batch in enumerate(loader, start):
            self.run_iter(idx, data_batch)
        end = begin + crops
        self.pass_epochs = crops
        self._epoch = end - 1  # hooks take this for the epoch that ends now
        for _ in range(crops - 1):  # mmengine's hook adds the last step
            self._step_schedulers()
        self.position = LoopState(epoch=end, iter=self._iter, data_epoch=end, validated=False)
        self.runner.call_hook('after_train_epoch')
        self._epoch = end
        if self.dataloader is not loader:
            loader.close()
            self.dataloader.seconds = loader.seconds

    def _current(self) -> Pass:
        """The pass that the position is in; the last one when all is done."""
        return next(each for each in reversed(self.passes) if each.epoch <= self.position.epoch)

    def _step_schedulers(self) -> None:
        schedulers = self.runner.param_schedulers or []
        groups = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
        for scheduler in (scheduler for group in groups for scheduler in group):
            if scheduler.by_epoch:
                scheduler.step()

    def _validate(self) -> None:
        """Validate, if a multiple of the interval was completed and this was not done yet."""
        if self.position.validated:
            return
        self._decide_current_val_interval()
        self.position.validated = True  # before, as the hooks of the validation may save a checkpoint
        begin = next(each.epoch for each in reversed(self.passes) if each.epoch < self._epoch)
        due = self._epoch // self.val_interval > begin // self.val_interval
        done = self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and (due or done):
            self.runner.val_loop.run()


def warmup_cosine_epoch(
    epoch: int, total: int, base: float, warmup: int = 0, warmup_start: float = 0.0, last: float = 0.0
) -> float:
    """Learning rate of an epoch: ``last + (base - last) * 0.5 * (1 + cos(pi * epoch / total))``.

    In the warm-up it is linear from ``warmup_start`` to ``base``. The cosine does not wait for it: its clock starts
    with the training, as in timm's ``CosineLRScheduler``, so it sets in a little below ``base``.
    """
    if epoch < warmup:
        return warmup_start + epoch * (base - warmup_start) / warmup
    return last + 0.5 * (base - last) * (1 + math.cos(math.pi * min(epoch, total) / total))


@PARAM_SCHEDULERS.register_module()
class WarmupCosineByEpoch(LRSchedulerMixin, _ParamScheduler):
    """:func:`warmup_cosine_epoch` as a scheduler, in closed form: the schedules of FKD's two scripts.

    Args:
        optimizer: optimizer or wrapper; each group's own ``lr`` is its base.
        warmup: epochs of the warm-up.
        warmup_start: learning rate of epoch 0, over the base one.
        eta_min_ratio: last learning rate over the base one.
        begin: epoch of the first value.
        end: epoch at which the cosine is at its end; mmengine's runner fills in the length of the training.
        last_step: as in mmengine.
        by_epoch: must be True.
        verbose: log each value.

    Raises:
        UserError: it would step by iteration, has no end, or a value is out of range.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        warmup: int = 0,
        warmup_start: float = 0.0,
        eta_min_ratio: float = 0.0,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if not by_epoch:
            raise UserError(
                'WarmupCosineByEpoch steps by epoch; by iteration there is vfd.WarmupCosineByIter'
            )
        if end >= INF:
            raise UserError('WarmupCosineByEpoch needs `end`: the epoch at which the cosine is at its end')
        if warmup < 0 or not 0 <= warmup_start <= 1 or not 0 <= eta_min_ratio <= 1:
            raise UserError(
                f'WarmupCosineByEpoch: warmup={warmup}, warmup_start={warmup_start}, eta_min_ratio={eta_min_ratio}; '
                'expected warmup >= 0 and both ratios between 0 and 1'
            )
        self.warmup, self.warmup_start, self.eta_min_ratio = warmup, warmup_start, eta_min_ratio
        self.total = end - begin
        super().__init__(optimizer, begin=begin, end=end, last_step=last_step, by_epoch=True, verbose=verbose)

    def _get_value(self) -> list[float]:
        return [
            warmup_cosine_epoch(
                self.last_step,
                self.total,
                base,
                self.warmup,
                self.warmup_start * base,
                self.eta_min_ratio * base,
            )
            for base in self.base_values
        ]
