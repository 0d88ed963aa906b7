"""Importing vfd is light, and the rooms import only what they may."""

import json
import subprocess
import sys
from pathlib import Path

from house_pages import ROOT

SCRIPT = """
import json, sys, time
begin = time.perf_counter()
import vfd
seconds = time.perf_counter() - begin
print(json.dumps([seconds, sorted(name for name in sys.modules if '.' not in name)]))
"""
HEAVY = {'torch', 'torchvision', 'timm', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'cv2', 'numpy'}


def test_import_takes_less_than_a_second_and_nothing_heavy():
    runs = [
        json.loads(
            subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=True).stdout
        )
        for _ in range(3)
    ]
    assert min(seconds for seconds, _ in runs) < 1.0
    assert not HEAVY & set(runs[0][1])


def test_import_contracts_are_kept():
    program = Path(sys.executable).with_name('lint-imports')
    done = subprocess.run([program, '--no-cache'], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and ' 0 broken' in done.stdout, done.stdout + done.stderr
