"""What the tests of the compatibility room share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# before any test module of this folder imports mmcv.ops
import vfd.compat

vfd.compat.install()


@pytest.fixture
def run_python(tmp_path):
    """Run a script in a fresh interpreter, with ``tmp_path`` ahead of the installed packages; returns its output."""

    def run(script):
        path = tmp_path / 'main_script.py'
        path.write_text(script)
        root = Path(__file__).parents[2]
        before = os.environ.get('PYTHONPATH', '')
        environment = os.environ | {
            'PYTHONPATH': os.pathsep.join(filter(None, [str(tmp_path), str(root), before])),
            'OMP_NUM_THREADS': '1',
        }
        done = subprocess.run(
            [sys.executable, str(path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
