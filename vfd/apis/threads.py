"""The wait policy of CPU threads, set before torch is imported."""

from __future__ import annotations

import os


def wait_passively() -> None:
    """Let OpenMP threads that have no work sleep instead of spin, unless the user chose otherwise.

    torch's CPU threads (GNU's libgomp in its Linux wheels) spin for milliseconds between two operations. Where another
    program needs the same core, all of them wait for threads that do nothing. The runtime reads the variable when it is
    loaded, so this has to be called before torch is imported; measured in ``benchmarks/bench_threads.py``.
    """
    if not {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME'} & set(os.environ):
        os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'
