"""CPU threads wait passively unless the user said how they wait; torch's runtime is told in time."""

import os
import subprocess
import sys

import pytest

from vfd.apis.threads import wait_passively

NAMES = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')
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
    wait_passively()
    assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'
    for name in NAMES:
        monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
        monkeypatch.setenv(name, 'ACTIVE')
        wait_passively()
        assert os.environ.get('OMP_WAIT_POLICY') == ('ACTIVE' if name == 'OMP_WAIT_POLICY' else None)
        monkeypatch.delenv(name)


@pytest.mark.parametrize('given, policy', [({}, 'PASSIVE'), ({'OMP_WAIT_POLICY': 'ACTIVE'}, 'ACTIVE')])
def test_the_runtime_reads_it(given, policy):
    environment = {**os.environ, 'OMP_DISPLAY_ENV': 'TRUE', **given}
    result = subprocess.run([sys.executable, '-c', WORK], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    if 'OMP_WAIT_POLICY' not in result.stderr:
        pytest.skip('the OpenMP runtime of this torch does not display its settings')
    assert f"OMP_WAIT_POLICY = '{policy}'" in result.stderr
