"""The wait policy of CPU threads, set before torch is imported."""

from __future__ import annotations

import os

_SPINS = '1000'  # some microseconds; libgomp's default is 300,000


def spin_briefly() -> None:
    """Let CPU threads without work spin for microseconds, then sleep, unless the user chose how they wait.

    torch's Linux wheels use GNU's libgomp, whose threads spin for milliseconds between two operations. Where another
    program needs the same core, all of them wait for threads that do nothing; threads that sleep at once
    (``OMP_WAIT_POLICY=PASSIVE``) make a step on an idle machine over 10 % slower. The runtime reads the variable when
    it is loaded, so this has to be called before torch is imported. Measured in ``benchmarks/bench_threads.py``.
    """
    if not {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'} & set(os.environ):
        os.environ['GOMP_SPINCOUNT'] = _SPINS
