"""CPU threads spin briefly unless the user said how they wait; torch's runtime is told in time."""

import os
import subprocess
import sys

import pytest

from vfd.apis.threads import spin_briefly

NAMES = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
WORK = """
import sys
from vfd.cli.main import guarded, main
def work():
    assert 'torch' not in sys.modules
    import torch
sys.exit(guarded(work))
"""


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, 'x')  # so that it is restored
        monkeypatch.delenv(name)


def test_the_user_decides_when_there_is_a_setting(monkeypatch):
    spin_briefly()
    assert int(os.environ['GOMP_SPINCOUNT']) < 10_000
    monkeypatch.delenv('GOMP_SPINCOUNT')
    monkeypatch.setenv('OMP_WAIT_POLICY', 'ACTIVE')
    spin_briefly()
    assert 'GOMP_SPINCOUNT' not in os.environ and os.environ['OMP_WAIT_POLICY'] == 'ACTIVE'


@pytest.mark.parametrize('given, spins', [({}, '1000'), ({'GOMP_SPINCOUNT': '77'}, '77')])
def test_the_runtime_reads_it(given, spins):
    environment = {**os.environ, 'OMP_DISPLAY_ENV': 'VERBOSE', **given}
    result = subprocess.run([sys.executable, '-c', WORK], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    if 'GOMP_SPINCOUNT' not in result.stderr:
        pytest.skip('the OpenMP runtime of this torch is not libgomp')
    assert f"GOMP_SPINCOUNT = '{spins}'" in result.stderr
