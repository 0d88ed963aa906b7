"""Time spent in a piece of work, without waiting for the GPU."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Sum of the time of the blocks run under it; on CUDA with events that are read once they are over."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def run(self, device: torch.device) -> Iterator[None]:
        """Measure the block; ``device`` says where its work runs."""
        if device.type == 'cuda':
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._pending.append((start, end))
        else:
            begun = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - begun

    @property
    def seconds(self) -> float:
        """Seconds of everything that is over; work still running on the GPU is left for the next reading."""
        while self._pending and self._pending[0][1].query():
            start, end = self._pending.popleft()
            self._seconds += start.elapsed_time(end) / 1000
        return self._seconds
