"""Ctrl-C and SIGTERM: finish the step, save, say how to go on."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

from mmengine.hooks import EMAHook, Hook

from vfd.engine.distributed import any_rank
from vfd.engine.hooks.checkpoint import CheckpointHook
from vfd.registry import HOOKS

EXIT_CODE = 130
_ASK_EVERY = 10  # iterations between two agreements of several processes


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ends an interrupted run with a checkpoint and exit code 130; a second Ctrl-C ends it at once, without.

    Several processes agree on the step to stop at every ten iterations. A validation is cut short (with one process)
    and run again after resuming.
    """

    priority = 'VERY_LOW'  # registered after the checkpoint hook, so it runs after it

    def __init__(self) -> None:
        self._signal: int | None = None
        self._previous: dict[int, Any] = {}

    def before_train(self, runner: Any) -> None:
        """Take over the signals (only possible in the main thread)."""
        self._signal = None
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._on_signal)
            except ValueError:
                return

    def on_exit(self, runner: Any) -> None:
        """Give the signals back."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and number == signal.SIGINT:
            os.write(
                1, b'\x1b[?25h\n' if os.isatty(1) else b'\n'
            )  # the progress bar may have hidden the cursor
            os._exit(EXIT_CODE)
        self._signal = number
        # Not the logger: the signal may have come while it was writing.
        os.write(2, b'\nfinishing this step, then saving a checkpoint (Ctrl-C again: stop at once)\n')

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Stop, if asked to."""
        agree = runner.world_size == 1 or (runner.iter + 1) % _ASK_EVERY == 0
        if agree and any_rank(self._signal is not None, runner.control_group):
            self._stop(runner)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop a validation between training steps, if asked to."""
        if self._signal is None or runner.world_size > 1:
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):  # it has exchanged the weights for the time of the validation
                hook._swap_ema_parameters()
        runner.train_loop.position.validated = False
        self._stop(runner)

    def _stop(self, runner: Any) -> None:
        savers = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        position = runner.train_loop.position
        if savers:
            path = savers[0].save_interrupted(runner)
            runner.logger.warning(
                f'interrupted after iteration {position.iter}, saved to {path}. '
                'Continue with the same command and --resume'
            )
        else:
            runner.logger.warning(
                f'interrupted after iteration {position.iter}; this run has no checkpoint hook'
            )
        runner.visualizer.close()
        raise SystemExit(EXIT_CODE)
