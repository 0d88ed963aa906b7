"""What it costs and saves that waiting CPU threads soon sleep: ``GOMP_SPINCOUNT=1000`` against libgomp's default.

Two processes, one with each setting, train the same small network in turns with as many threads as there are cores:
beside a program that keeps a core busy, without one, and, where the user may give it (``chrt``, Linux, root), at
real-time priority: the cores are then theirs alone, as on an idle machine. The runtime reads the setting when torch is
loaded, so the sides cannot share a process; the other side sleeps while one is timed. What other programs load the
machine with is written into the setting.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from _common import Row, parse_arguments, report

WORKER = """
import sys, time, timm, torch
torch.set_num_threads({threads})
torch.manual_seed(0)
model = timm.create_model('resnet10t', num_classes=10).train()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
images, labels = torch.randn(8, 3, 96, 96), torch.arange(8)
for line in sys.stdin:
    begun = time.perf_counter()
    for _ in range(int(line)):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    print(time.perf_counter() - begun, loss.item(), flush=True)
"""
BUSY = 'while True: pass'


class Side:
    """A process that trains when told to."""

    def __init__(self, threads: int, spins: str | None) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(('OMP_', 'GOMP_', 'KMP_'))}
        if spins:
            environment['GOMP_SPINCOUNT'] = spins
        self.process = subprocess.Popen(
            [sys.executable, '-c', WORKER.format(threads=threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.losses: list[float] = []

    def run(self, steps: int) -> float:
        """Seconds of a step."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f'{steps}\n')
        self.process.stdin.flush()
        seconds, loss = map(float, self.process.stdout.readline().split())
        self.losses.append(loss)
        return seconds / steps

    def take_the_cores(self) -> bool:
        """Give all threads of the process real-time priority; whether that was allowed."""
        if shutil.which('chrt') is None:
            return False
        command = ['chrt', '--all-tasks', '--fifo', '--pid', '10', str(self.process.pid)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """Another program that keeps one core busy."""
    process = subprocess.Popen([sys.executable, '-c', BUSY]) if busy else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def main() -> None:
    arguments = parse_arguments(__doc__.splitlines()[0])
    cores = os.cpu_count() or 1
    pairs, steps = (8, 1) if arguments.quick else (30, 3)
    ours, baseline = Side(cores, '1000'), Side(cores, None)
    rows = []
    try:
        for side in (ours, baseline):
            side.run(2)
        for name, busy in (
            ('beside a busy program', True),
            ('no neighbour', False),
            ('real-time priority', False),
        ):
            if name.startswith('real-time') and not all([ours.take_the_cores(), baseline.take_the_cores()]):
                continue
            times: tuple[list[float], list[float]] = ([], [])
            load = os.getloadavg()[0] - busy
            with neighbour(busy):
                time.sleep(0.2)
                for _ in range(pairs):
                    for side, seconds in zip((ours, baseline), times, strict=True):
                        seconds.append(
                            side.run(steps if busy or name.startswith('no') else 4)
                        )  # past the first wake-up
            aim = 1.0 if busy else 0.97
            difference = max(abs(a - b) for a, b in zip(ours.losses, baseline.losses, strict=True))
            setting = (
                f'resnet10t, batch 8 of 96 px, {cores} threads on {cores} cores, load of others {load:.1f}'
            )
            rows.append(Row.of(f'training step, {name}', *times, aim, difference, setting))
    finally:
        ours.stop()
        baseline.stop()
    report(rows, arguments, 'CPU threads that soon sleep while they wait')


if __name__ == '__main__':
    main()
