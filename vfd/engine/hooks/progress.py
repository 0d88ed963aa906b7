"""How far the run is, and where the time of a step goes."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import AbstractContextManager
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vfd.registry import HOOKS
from vfd.teachers.stopwatch import Stopwatch

_REFRESH = 0.2  # seconds


@HOOKS.register_module()
class ProgressHook(Hook):
    """On a terminal, a live bar with ETA, losses and time shares; everywhere, the shares as log scalars.

    ``time_share/data`` is the wait for a batch, ``time_share/teacher`` the teacher's forward pass,
    ``time_share/optimizer`` the optimizer's step, ``time_share/student`` the rest of the training step (forward and
    backward). They are fractions of their sum, over the last ``interval`` iterations; hooks, checkpoints and
    validation are not in it. Nothing waits for the GPU: teacher and optimizer are timed with CUDA events.

    Args:
        interval: iterations between two updates of the shares.
    """

    priority = 'NORMAL'  # before the logger reads the scalars

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self.console = Console()
        self.shares: dict[str, float] = {}
        self._progress: Progress | None = None
        self._handles: list = []
        self._streams: list[tuple[logging.StreamHandler, Any]] = []

    def before_train(self, runner: Any) -> None:
        """Start the clocks, and the bar on a terminal."""
        self._teacher = getattr(runner.bare_model, 'teacher', None)
        self._device = next(runner.bare_model.parameters()).device
        self._optimizer_watch = Stopwatch()
        wrapper = runner.optim_wrapper
        for single in getattr(wrapper, 'optim_wrappers', {'': wrapper}).values():
            self._handles.append(single.optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(single.optimizer.register_step_post_hook(self._after_step))
        self._running: AbstractContextManager | None = None
        self._step_seconds = 0.0
        self._before = self._clocks(runner)
        if self.console.is_terminal and is_main_process():
            self._start_bar(runner)

    def _before_step(self, *_: Any) -> None:
        self._running = self._optimizer_watch.run(self._device)
        self._running.__enter__()

    def _after_step(self, *_: Any) -> None:
        if self._running is not None:
            self._running.__exit__(None, None, None)
            self._running = None

    def _clocks(self, runner: Any) -> dict[str, float]:
        """Seconds so far."""
        teacher = self._teacher.seconds if self._teacher is not None else 0.0
        optimizer = self._optimizer_watch.seconds
        student = self._step_seconds - teacher - optimizer
        data = runner.train_loop.dataloader.seconds
        return {'data': data, 'teacher': teacher, 'student': student, 'optimizer': optimizer}

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """The batch is there."""
        self._begun = time.perf_counter()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """The step is done."""
        self._step_seconds += time.perf_counter() - self._begun
        if (runner.iter + 1) % self.interval == 0:
            now = self._clocks(runner)
            spent = {name: max(0.0, now[name] - self._before[name]) for name in now}
            total = sum(spent.values()) or 1.0
            self._before = now
            self.shares = {name: seconds / total for name, seconds in spent.items()}
            for name, share in self.shares.items():
                runner.message_hub.update_scalar(f'train/time_share/{name}', share)
        if self._progress is not None:
            self._update_bar(runner)

    def on_exit(self, runner: Any) -> None:
        """Stop the clocks and the bar."""
        while self._handles:
            self._handles.pop().remove()
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        while self._streams:
            handler, stream = self._streams.pop()
            handler.setStream(stream)

    def _start_bar(self, runner: Any) -> None:
        self._progress = Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn('{task.fields[losses]}'),
            TextColumn('[dim]{task.fields[shares]}'),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._task = self._progress.add_task(
            'training', total=runner.max_iters, completed=runner.iter, losses='', shares=''
        )
        before = sys.stdout, sys.stderr
        self._progress.start()
        for handler in runner.logger.handlers:  # log lines go above the bar, not through it
            if isinstance(handler, logging.StreamHandler) and handler.stream in before:
                self._streams.append((handler, handler.stream))
                handler.setStream(sys.stdout)
        self._refreshed = 0.0

    def _update_bar(self, runner: Any) -> None:
        assert self._progress is not None
        now = time.perf_counter()
        if now - self._refreshed < _REFRESH and runner.iter + 1 < runner.max_iters:
            return
        self._refreshed = now
        scalars = runner.message_hub.log_scalars.items()
        losses = {
            name.removeprefix('train/'): log.current()
            for name, log in scalars
            if name.startswith('train/') and 'loss' in name
        }
        self._progress.update(
            self._task,
            completed=runner.iter + 1,
            losses='  '.join(f'{name} {value:.4g}' for name, value in losses.items()),
            shares='  '.join(f'{name} {share:.0%}' for name, share in self.shares.items()),
        )
