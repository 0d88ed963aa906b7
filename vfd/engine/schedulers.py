"""Learning-rate schedules that mmengine lacks."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType, _ParamScheduler

from vfd.errors import UserError
from vfd.registry import PARAM_SCHEDULERS


def warmup_cosine(step: int, total: float, warmup: float) -> float:
    """Factor on the base learning rate at iteration ``step``.

    Linear from 0 in ``round(warmup)`` iterations (the first one has factor 0), then half a cosine down to 0 over the
    remaining ``total - warmup``. A warm-up longer than the training is cut to it.
    """
    warmup = min(warmup, total)
    rise = round(warmup)
    if step < rise:
        return step / rise
    if step >= total:
        return 0.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / (total - warmup)))


@PARAM_SCHEDULERS.register_module()
class WarmupCosineByIter(LRSchedulerMixin, _ParamScheduler):
    """Linear warm-up and cosine by iteration, in closed form.

    The value depends on the iteration alone, not on the value before it: nothing accumulates over a long run, a start
    factor of 0 is possible (mmengine's recursive ``LinearLR`` divides by it), and a resumed run continues exactly.

    Configs count in epochs and let mmengine convert::

        dict(type='vfd.WarmupCosineByIter', warmup=5, by_epoch=True, convert_to_iter_based=True)

    Args:
        optimizer: optimizer or wrapper; each group's own ``lr`` is its base.
        warmup: length of the warm-up, in iterations (in epochs in a config that is converted); may be fractional.
        begin: iteration of the first value.
        end: iteration at which the schedule has come to 0; mmengine's runner fills in the length of the training.
        last_step: as in mmengine.
        by_epoch: must be False once built; True belongs to configs that mmengine converts.
        verbose: log each value.

    Raises:
        UserError: if the schedule would step by epoch, or has no end.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        warmup: float = 0,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = False,
        verbose: bool = False,
    ) -> None:
        if by_epoch:
            raise UserError(
                'WarmupCosineByIter steps by iteration. To count in epochs write '
                'by_epoch=True, convert_to_iter_based=True; to count in iterations write by_epoch=False.'
            )
        if end >= INF:
            raise UserError(
                'WarmupCosineByIter needs `end`: the iteration at which the learning rate reaches 0.'
            )
        if warmup < 0:
            raise UserError(f'WarmupCosineByIter: warmup={warmup} must not be negative.')
        self.warmup = warmup
        self.total = end - begin
        super().__init__(
            optimizer, begin=begin, end=end, last_step=last_step, by_epoch=False, verbose=verbose
        )

    @classmethod
    def build_iter_from_epoch(
        cls,
        optimizer: OptimizerType,
        warmup: float = 0,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> WarmupCosineByIter:
        """Build from settings in epochs; mmengine's registry calls this for ``convert_to_iter_based=True``."""
        assert by_epoch, 'only settings in epochs (by_epoch=True) can be converted'
        assert epoch_length is not None and epoch_length > 0, epoch_length
        if end < INF:
            end = int(end * epoch_length)
        begin = int(begin * epoch_length)
        return cls(optimizer, warmup=warmup * epoch_length, begin=begin, end=end, **kwargs)

    def _get_value(self) -> list[float]:
        factor = warmup_cosine(self.last_step, self.total, self.warmup)
        return [base * factor for base in self.base_values]
