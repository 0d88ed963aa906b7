"""The learning-rate schedule of PH-Reg's released code: exponential by epoch, and late by one iteration."""

from __future__ import annotations

from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType, _ParamScheduler

from vfd.engine.schedulers import epochs_to_iterations
from vfd.errors import UserError
from vfd.registry import PARAM_SCHEDULERS


def shifted_exponential(epoch: int, total: float, floor: float) -> float:
    """Factor on the base learning rate once a step of ``epoch`` (from 0) is made: ``floor^((epoch + 1) / total)``.

    Args:
        epoch: of the last step.
        total: epochs of the whole schedule.
        floor: last factor, which is not undercut.
    """
    return max(floor ** ((epoch + 1) / total), floor)


@PARAM_SCHEDULERS.register_module()
class ShiftedExponentialByIter(LRSchedulerMixin, _ParamScheduler):
    """Exponential decay by epoch, set after the optimizer's steps (arXiv 2505.21501, released code).

    After every step of epoch e (from 0) of E the rate is ``lr * eta_min_ratio^((e + 1) / E)``. So the first iteration
    of all has the base rate, the first one of a later epoch still the rate of the epoch before, and the last ones
    ``lr * eta_min_ratio``. An iteration without a step (its loss was not finite and was skipped; gradients are being
    accumulated) leaves the rate as it is::

        param_scheduler = dict(
            type='vfd.ShiftedExponentialByIter', eta_min_ratio=0.05, by_epoch=True, convert_to_iter_based=True)

    Args:
        optimizer: optimizer or wrapper; each group's own ``lr`` is its base.
        eta_min_ratio: last learning rate over the base one.
        epoch_length: iterations of an epoch; a config that is converted gets it from mmengine.
        begin: iteration of the first value.
        end: iteration at which the schedule ends; mmengine's runner fills in the length of the training. To stop
            early in a longer schedule write its epochs here.
        last_step: as in mmengine.
        by_epoch: must be False once built; True belongs to configs that mmengine converts.
        verbose: log each value.

    Raises:
        UserError: if the schedule would step by epoch, has no end, or its last rate is not between 0 and the base.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        eta_min_ratio: float,
        epoch_length: int = 1,
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = False,
        verbose: bool = False,
    ) -> None:
        name = type(self).__name__
        if by_epoch:
            raise UserError(
                f'{name} steps by iteration and counts in epochs: write by_epoch=True, convert_to_iter_based=True.'
            )
        if end >= INF:
            raise UserError(f'{name} needs `end`: when the learning rate reaches its last value.')
        if not 0 < eta_min_ratio <= 1:
            raise UserError(f'{name}: eta_min_ratio={eta_min_ratio} must lie above 0 and not above 1.')
        self.eta_min_ratio = eta_min_ratio
        self.epoch_length = epoch_length
        self.total = (end - begin) / epoch_length
        self._stepped_in: int | None = None  # epoch of the optimizer's last step
        self._steps_seen = 0
        super().__init__(
            optimizer, begin=begin, end=end, last_step=last_step, by_epoch=False, verbose=verbose
        )

    @classmethod
    def build_iter_from_epoch(
        cls,
        optimizer: OptimizerType,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        epoch_length: int | None = None,
        **kwargs: Any,
    ) -> ShiftedExponentialByIter:
        """Build from settings in epochs; mmengine's registry calls this for ``convert_to_iter_based=True``."""
        assert by_epoch, 'only settings in epochs (by_epoch=True) can be converted'
        begin, end = epochs_to_iterations(begin, end, epoch_length)
        return cls(optimizer, epoch_length=epoch_length or 1, begin=begin, end=end, **kwargs)

    def state_dict(self) -> dict:
        """The state, without the count of steps, which begins anew with each optimizer."""
        return {key: value for key, value in super().state_dict().items() if key != '_steps_seen'}

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue where ``state_dict`` was taken."""
        super().load_state_dict(state_dict)
        self._steps_seen = self.optimizer._global_step

    def _get_value(self) -> list[float]:
        steps = self.optimizer._global_step  # mmengine's schedulers count the optimizer's steps
        if self.last_step > 0 and steps > self._steps_seen:
            self._stepped_in = (self.last_step - 1) // self.epoch_length
        self._steps_seen = steps
        if self._stepped_in is None:
            return list(self.base_values)
        factor = shifted_exponential(self._stepped_in, self.total, self.eta_min_ratio)
        return [base * factor for base in self.base_values]
