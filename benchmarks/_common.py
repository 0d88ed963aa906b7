"""What every benchmark shares: both sides interleaved in one process, medians, a table, rows of JSON.

A benchmark builds rows and hands them to :func:`report`. ``ratio`` is always baseline / ours: above 1 means that
ours is faster. The baseline is the plain way to write the same thing, and both sides' results are compared before
any time is printed.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / 'results'


@dataclasses.dataclass
class Row:
    """One comparison.

    Attributes:
        name: what is measured.
        ours_s: median seconds of ours.
        baseline_s: median seconds of the baseline.
        ratio: median of baseline / ours over the pairs of neighbouring runs.
        ratio_error: standard error of that median.
        aim: the ratio that is wanted at least.
        max_abs_diff: largest difference between both sides' results.
        setting: shapes, types, repeats.
        peak_mb: peak memory of the whole process so far, in MiB.
    """

    name: str
    ours_s: float
    baseline_s: float
    ratio: float
    ratio_error: float
    aim: float
    max_abs_diff: float
    setting: str
    peak_mb: float

    @classmethod
    def of(
        cls,
        name: str,
        ours: list[float],
        baseline: list[float],
        aim: float,
        max_abs_diff: float,
        setting: str,
    ) -> Row:
        """Summarise the seconds of every run of both sides, which took turns."""
        ratios = [base / own for own, base in zip(ours, baseline, strict=True)]
        return cls(
            name,
            statistics.median(ours),
            statistics.median(baseline),
            statistics.median(ratios),
            1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5,
            aim,
            max_abs_diff,
            f'{setting}, {len(ratios)} pairs',
            peak_mb(),
        )


def parse_arguments(description: str) -> argparse.Namespace:
    """Parse ``--json FILE``, ``--quick``, ``--threads N``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='write the rows there, and a table beside it (.md)'
    )
    parser.add_argument('--quick', action='store_true', help='fewer repeats, under 50 seconds')
    parser.add_argument('--threads', type=int, default=1, help="torch's threads (default 1: the steadiest)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments


def keep_memory() -> None:
    """Make glibc keep freed memory from here on instead of giving it back to the system (elsewhere: nothing).

    Both sides of an interleaved comparison live in one heap: what one side's turn makes the allocator give back, the
    other side's turn has to fetch again page by page. With large models that is some per cent of a step and says
    nothing about either. It is also how a GPU's caching allocator behaves.
    """
    if sys.platform == 'linux':
        mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
        if mallopt is not None:
            mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def interleaved(sides: Sequence[Callable[[], object]], repeats: int, warmup: int = 3) -> list[list[float]]:
    """Measure the seconds of every run; the sides take turns, so that a busy machine slows all of them."""
    seconds: list[list[float]] = [[] for _ in sides]
    for repeat in range(warmup + repeats):
        for side, times in zip(sides, seconds, strict=True):
            begun = time.perf_counter()
            side()
            if repeat >= warmup:
                times.append(time.perf_counter() - begun)
    return seconds


def peak_mb() -> float:
    """Return the peak resident memory of this process in MiB."""
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def machine() -> str:
    """Describe the machine, without its name."""
    kind = f'{os.cpu_count()}-core {platform.machine()} CPU'
    if torch.cuda.is_available():
        kind += f', {torch.cuda.get_device_name()}'
    return f'{kind}, {torch.get_num_threads()} thread(s), torch {torch.__version__}'


def table(rows: Sequence[Row]) -> str:
    """Format the rows in Markdown."""
    lines = [
        '| what | setting | baseline | ours | ratio (standard error) | aim | largest difference | peak MiB |',
        '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    for row in rows:
        lines.append(
            f'| {row.name} | {row.setting} | {1000 * row.baseline_s:.2f} ms | {1000 * row.ours_s:.2f} ms '
            f'| {row.ratio:.3f} ({row.ratio_error:.3f}) | >= {row.aim:.3f} | {row.max_abs_diff:.1e} | {row.peak_mb:.0f} |'  # noqa: E501
        )
    return '\n'.join(lines)


def report(rows: Sequence[Row], arguments: argparse.Namespace, title: str) -> None:
    """Print the table; with ``--json FILE`` also write FILE and the table beside it."""
    text = f'Machine: {machine()}. Medians of interleaved runs; ratio = baseline / ours, median of the pairs.\n\n{table(rows)}\n'  # noqa: E501
    print(text)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + '\n')
        arguments.json.with_suffix('.md').write_text(f'# {title}\n\n{text}')
