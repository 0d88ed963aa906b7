"""Says how many samples were skipped."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mmengine.hooks import Hook

from vfd.engine.distributed import gather_to_main
from vfd.registry import HOOKS


@HOOKS.register_module()
class BadDataHook(Hook):
    """Sums up skipped samples over all ranks, at the end of every epoch and of the run.

    The samples themselves are named in ``bad_data.txt`` (:mod:`vfd.engine.bad_data`) as they are met.
    """

    def __init__(self) -> None:
        self._reported = 0

    def _report(self, runner: Any) -> None:
        ranks = gather_to_main(runner.bad_data.counts, runner.control_group)
        if ranks is None:
            return
        counts: Counter[str] = sum(ranks, Counter())
        total = sum(counts.values())
        new, self._reported = total - self._reported, total
        if new:
            named = f'{len(counts)} files named in {runner.bad_data.path}'
            runner.logger.warning(f'bad data: {new} samples skipped, {total} so far, from {named}')

    def after_train_epoch(self, runner: Any) -> None:
        """Report."""
        self._report(runner)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Report."""
        self._report(runner)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Report."""
        self._report(runner)
