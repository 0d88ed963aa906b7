"""Output of an offline step for the user: a plan before it starts, a bar while it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

LOG_EVERY = 30.0  # seconds between lines where there is no terminal to redraw


@dataclass(frozen=True)
class Plan:
    """The size of an offline step.

    Attributes:
        title: what will be done.
        items: number of items in all (of this rank).
        done: how many of them an earlier run has finished.
        record_bytes: bytes written for one item.
        item_seconds: time one item takes, measured on a first batch; None when nothing was measured.
    """

    title: str
    items: int
    done: int
    record_bytes: int
    item_seconds: float | None = None

    def __str__(self) -> str:
        todo = self.items - self.done
        parts = [f'{self.title}: {self.items} items']
        if self.done:
            parts.append(f'{self.done} already done')
        parts.append(f'{readable_bytes(self.items * self.record_bytes)} on disk')
        if self.item_seconds is not None:
            parts.append(f'about {readable_seconds(todo * self.item_seconds)} to go')
        return ', '.join(parts)


class Progress:
    """A bar on a terminal, a line now and then elsewhere.

    Example:
        >>> with Progress('scoring', total=1000, done=200) as progress:
        ...     progress.advance(8)

    Args:
        title: what is counted.
        total: number of items.
        done: items that an earlier run finished; they do not count for the speed.
        console: where to write, standard error by default.
    """

    def __init__(self, title: str, total: int, done: int = 0, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.title, self.total, self.done = title, total, done
        self._begin_done = done
        self._begin = self._last_line = time.monotonic()
        self._bar: RichProgress | None = None
        if self.console.is_terminal:
            self._bar = RichProgress(
                TextColumn('{task.description}'),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task(title, total=total, completed=done)

    def advance(self, items: int) -> None:
        """Count ``items`` more."""
        self.done += items
        if self._bar is not None:
            self._bar.advance(self._task, items)
        elif time.monotonic() - self._last_line >= LOG_EVERY:
            self._last_line = time.monotonic()
            self._print_line()

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._print_line()

    def _print_line(self) -> None:
        elapsed = time.monotonic() - self._begin
        line = f'{self.title}: {self.done}/{self.total} in {readable_seconds(elapsed)}'
        counted = self.done - self._begin_done
        if counted > 0 and self.done < self.total:
            line += f', {readable_seconds(elapsed / counted * (self.total - self.done))} to go'
        self.console.print(line, highlight=False)


def readable_bytes(count: float) -> str:
    """Format ``1536`` as ``'1.5 KiB'``."""
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if count < 1024:
            return f'{count:.0f} {unit}' if unit == 'B' else f'{count:.1f} {unit}'
        count /= 1024
    return f'{count:.1f} TiB'


def readable_seconds(seconds: float) -> str:
    """Format ``3725`` as ``'1 h 02 min'``."""
    if seconds < 60:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02d} min'
