"""``vfd list``: names from the registries, configs with what their metafiles say; and what the command imports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vfd.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def listed(capsys):
    """Run ``vfd list ...``: its lines."""

    def run(*arguments: str) -> list[str]:
        assert main(['list', *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    return run


def test_every_package_of_methods_is_listed(listed):
    from vfd.registry import MODELS

    lines = listed('methods')
    found = {MODELS.get(line.split()[0]).__module__.split('.')[2] for line in lines[1:]}
    packages = {path.parent.name for path in ROOT.glob('vfd/methods/*/model.py')}
    assert packages <= found
    assert all(len(line.split()) > 3 for line in lines[1:])  # each says what it does
    assert '``' not in ''.join(lines) and ':func:' not in ''.join(lines)
    (one,) = listed('methods', 'DMAE')[1:]
    assert one.startswith('vfd.DMAE ')


def test_teachers_and_students_come_from_the_registries(listed):
    from vfd.registry import MODELS

    teachers = [line.split()[0] for line in listed('teachers')[1:]]
    assert {'vfd.Teacher', 'vfd.TimmSource', 'vfd.OpenCLIPSource'} <= set(teachers)
    students = listed('students')
    assert all(MODELS.get(line.split()[0]) for line in [*teachers, *students[1:]] if line.startswith('vfd.'))
    (timm,) = (line for line in students if line.startswith('timm '))
    assert int(timm.split()[1]) > 1000
    assert {line.split()[0] for line in listed('students', 'resnet1[08]')[1:]} == {'resnet18'}
    assert any(line.startswith('mmdet.RetinaNet ') for line in listed('students', 'mmdet.*'))
    assert 'nothing of that name' in listed('students', 'no_such_network')[-1]


def test_configs_are_listed_with_their_metafiles(listed):
    text = '\n'.join(listed('configs'))
    paths = [path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]
    assert sorted(re.findall(r'configs/\S+\.py', text)) == sorted(
        p.relative_to(ROOT).as_posix() for p in paths
    )
    for file in (ROOT / 'configs').glob('*/metafile.yml'):
        for collection in yaml.safe_load(file.read_text())['Collections']:
            assert collection['Paper']['URL'] in text
    lines = listed('configs', 'dmae_vit-base-p16_vit-large-p16_8xb128')
    (line,) = (line for line in lines if line.startswith('  configs/'))
    for fact in ('ViT-B/16 from ViT-L/16', 'ImageNet-1k', 'Top 1 Accuracy 84.0', 'published by the authors'):
        assert fact in line


def test_a_config_of_the_installation_is_found_from_anywhere(tmp_path, monkeypatch):
    from vfd.apis.config import load_config

    monkeypatch.chdir(tmp_path)
    config = load_config('configs/dmae/dmae_tiny_1xb8-coslr-4e_folder.py')
    assert config.model.type == 'vfd.DMAE'


@pytest.mark.parametrize('command', ['', *COMMANDS])
def test_help_imports_nothing_heavy(command):
    script = f"""
import sys
from vfd.cli.main import main
try:
    main({[command, '--help'] if command else ['--help']!r})
except SystemExit as leave:
    assert not leave.code
heavy = {{'torch', 'numpy', 'mmengine', 'mmcv', 'timm', 'cv2', 'rich'}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f'usage: vfd {command}'.strip() in done.stdout
