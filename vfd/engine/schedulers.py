"""Learning-rate schedules that mmengine lacks."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType, _ParamScheduler

from vfd.errors import UserError
from vfd.registry import PARAM_SCHEDULERS


def warmup_cosine(step: int, total: float, warmup: float, floor: float = 0.0) -> float:
    """Factor on the base learning rate at iteration ``step``.

    Linear from 0 in ``round(warmup)`` iterations (the first one has factor 0), then half a cosine down to ``floor``
    over the remaining ``total - warmup``. A warm-up longer than the training is cut to it.
    """
    warmup = min(warmup, total)
    rise = round(warmup)
    if step < rise:
        return step / rise
    if step >= total:
        return floor
    cosine = 0.5 * (1.0 + math.cos(math.pi * (step - rise) / (total - warmup)))
    return floor + (1.0 - floor) * cosine


def epochs_to_iterations(begin: int, end: int, epoch_length: int | None) -> tuple[int, int]:
    """Both ends of a schedule that a config gives in epochs; an open end stays open."""
    assert epoch_length is not None and epoch_length > 0, epoch_length
    return int(begin * epoch_length), end if end >= INF else int(end * epoch_length)


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
        eta_min_ratio: last learning rate over the base one; the warm-up still starts at 0 (MAE, section "fine-tuning":
            base 1e-3, last 1e-6).
        hold: iterations for which a value is kept; with gradients accumulated over k iterations the released MAE code
            changes the rate once in k, so give ``accumulative_counts`` to follow it to the digit.
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
        eta_min_ratio: float = 0.0,
        hold: int = 1,
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
        if not 0 <= eta_min_ratio <= 1:
            raise UserError(f'WarmupCosineByIter: eta_min_ratio={eta_min_ratio} must lie between 0 and 1.')
        if hold < 1:
            raise UserError(f'WarmupCosineByIter: hold={hold} must be at least 1 iteration.')
        self.warmup = warmup
        self.eta_min_ratio = eta_min_ratio
        self.hold = hold
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
        begin, end = epochs_to_iterations(begin, end, epoch_length)
        return cls(optimizer, warmup=warmup * (epoch_length or 1), begin=begin, end=end, **kwargs)

    def _get_value(self) -> list[float]:
        step = self.last_step - self.last_step % self.hold
        factor = warmup_cosine(step, self.total, self.warmup, self.eta_min_ratio)
        return [base * factor for base in self.base_values]
