"""The linear learning-rate schedule of the transformers' library, by iteration."""

from __future__ import annotations

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType, _ParamScheduler

from vfd.errors import UserError
from vfd.registry import PARAM_SCHEDULERS


def warmup_linear(step: int, total: int, warmup: int) -> float:
    """Factor on the base learning rate at iteration ``step``.

    ``step / warmup`` before the end of the warm-up (the first iteration has factor 0), then ``(total - step) / (total -
    warmup)``, which comes to 0 at ``total``. Without a warm-up the first iteration has the full rate.
    """
    if step < warmup:
        return step / warmup
    return max(0, total - step) / (total - warmup)


@PARAM_SCHEDULERS.register_module()
class WarmupLinearByIter(LRSchedulerMixin, _ParamScheduler):
    """Linear warm-up from 0 and linear decay to 0, by iteration, in closed form.

    mmengine's recursive ``LinearLR`` cannot start at 0 (it divides by its start factor), and rounding adds up in its
    ``PolyLR``::

        param_scheduler = dict(type='vfd.WarmupLinearByIter', warmup=500, by_epoch=False)

    Args:
        optimizer: optimizer or wrapper; each group's own ``lr`` is its base.
        warmup: length of the warm-up in iterations.
        begin: iteration of the first value.
        end: iteration at which the schedule has come to 0; mmengine's runner fills in the length of the training.
        last_step: as in mmengine.
        by_epoch: must be False.
        verbose: log each value.

    Raises:
        UserError: if the schedule would step by epoch, has no end, or is all warm-up.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        warmup: int = 0,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = False,
        verbose: bool = False,
    ) -> None:
        if by_epoch:
            raise UserError('WarmupLinearByIter steps by iteration: write by_epoch=False.')
        if end >= INF:
            raise UserError(
                'WarmupLinearByIter needs `end`: the iteration at which the learning rate reaches 0.'
            )
        if not 0 <= warmup < end - begin:
            raise UserError(
                f'WarmupLinearByIter: warmup={warmup}, but the schedule has {end - begin} iterations; take 0 to '
                f'{end - begin - 1}.'
            )
        self.warmup = warmup
        self.total = end - begin
        super().__init__(
            optimizer, begin=begin, end=end, last_step=last_step, by_epoch=False, verbose=verbose
        )

    def _get_value(self) -> list[float]:
        factor = warmup_linear(self.last_step, self.total, self.warmup)
        return [base * factor for base in self.base_values]
