"""Importing vfd is light, and the rooms import only what they may."""

import ast
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


def registered_models(path: Path) -> set[str]:
    """Classes of a file that enter the registry of models."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any('MODELS.register_module' in ast.unparse(one) for one in node.decorator_list)
    }


def test_apis_offline_steps_and_commands_name_no_method():
    """Neither as a type in a config nor in a comparison; text for people may."""
    methods = set().union(*map(registered_models, ROOT.glob('vfd/methods/**/*.py')))
    assert {'DMAE', 'MAE', 'PHReg', 'RegionLabeller'} <= methods
    for room in ('apis', 'offline', 'cli'):
        for path in (ROOT / 'vfd' / room).rglob('*.py'):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert node.value.removeprefix('vfd.') not in methods, f'{path}:{node.lineno}'
