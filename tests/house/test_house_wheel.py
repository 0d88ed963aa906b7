"""The wheel and the source distribution: what is in them, and the command in an environment without any package."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from house_pages import ROOT

import vfd
from vfd.cli.main import COMMANDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def built(tmp_path_factory) -> Path:
    """Wheel and source distribution, built offline from a copy of the sources."""
    root = tmp_path_factory.mktemp('distribution')
    source = root / 'source'
    skipped = shutil.ignore_patterns('__pycache__', '*.egg-info', '*.pyc')
    source.mkdir()
    for name in ('vfd', 'configs', 'tools', 'examples', 'requirements'):
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for pattern in ('*.md', '*.toml', '*.py', '*.in', 'LICENSE', 'Makefile'):
        for file in ROOT.glob(pattern):
            shutil.copy(file, source)
    script = 'from setuptools import build_meta as b; print(b.build_sdist("dist"), b.build_wheel("dist"))'
    subprocess.run([sys.executable, '-c', script], cwd=source, check=True, capture_output=True)
    return source / 'dist'


@pytest.fixture(scope='module')
def wheel(built) -> Path:
    (file,) = built.glob('*.whl')
    return file


@pytest.fixture(scope='module')
def bare(wheel, tmp_path_factory):
    """Run ``vfd`` of the wheel in an environment without any other package: exit code, output and errors."""
    root = tmp_path_factory.mktemp('bare')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', root / 'venv'], check=True)
    python = root / 'venv/bin/python'
    subprocess.run(
        [sys.executable, '-m', 'pip', '--python', python, 'install', '-q', '--no-deps', '--no-index', wheel],
        check=True,
    )

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [root / 'venv/bin/vfd', *arguments], cwd=root, env={}, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_the_wheel_holds_package_configs_metafiles_tools_and_examples(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (metadata,) = (name for name in names if name.endswith('.dist-info/METADATA'))
        head = Parser().parsestr(file.read(metadata).decode())
    assert head['Name'] == 'vfdistill' and head['Version'] == vfd.__version__
    tracked = {
        path.relative_to(ROOT).as_posix()
        for folder in ('configs', 'tools', 'examples', 'requirements')
        for path in (ROOT / folder).rglob('*')
        if path.is_file() and path.suffix != '.pyc'
    }
    assert {f'vfd/.mim/{name}' for name in tracked} <= names
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'vfd').rglob('*.py')}
    assert code <= names
    others = {name for name in names if not name.startswith('vfd/') and '.dist-info/' not in name}
    assert not others


def test_the_extras_of_the_readme_exist(wheel):
    with zipfile.ZipFile(wheel) as file:
        (metadata,) = (name for name in file.namelist() if name.endswith('.dist-info/METADATA'))
        extras = Parser().parsestr(file.read(metadata).decode()).get_all('Provides-Extra')
    named = set(re.findall(r'\.\[(\w+)\]', (ROOT / 'README.md').read_text()))
    assert named and named | {'detection', 'segmentation', 'openclip', 'export', 'all'} <= set(extras)


def test_the_source_distribution_builds_the_same_wheel(built, wheel, tmp_path):
    (archive,) = built.glob('*.tar.gz')
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter='data')
    (source,) = tmp_path.iterdir()
    script = 'from setuptools import build_meta as b; b.build_wheel("dist")'
    subprocess.run([sys.executable, '-c', script], cwd=source, check=True, capture_output=True)
    (again,) = (source / 'dist').glob('*.whl')
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


def test_help_needs_no_package(bare):
    code, out, err = bare('--help')
    assert code == 0 and not err
    for command in COMMANDS:
        assert re.search(rf'\n    {command}\s', out)
        code, out_of_command, err = bare(command, '--help')
        assert code == 0 and f'usage: vfd {command}' in out_of_command, err
    assert bare('--version')[1].split() == ['vfd', vfd.__version__]


def test_configs_are_listed_without_any_package(bare):
    code, out, _ = bare('list', 'configs')
    assert code == 0
    configs = [path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]
    listed = re.findall(r'configs/\S+\.py', out)
    assert sorted(listed) == sorted(path.relative_to(ROOT).as_posix() for path in configs)
    assert 'vfd/.mim/configs' in out and 'pip install' in out  # what the metafiles say needs a package


RUNS = {
    'train': ['configs/dmae/dmae_tiny_1xb8-coslr-4e_folder.py', '--cfg-options', 'a=1'],
    'test': ['configs/dmae/dmae_tiny_1xb8-coslr-4e_folder.py'],
    'export': ['c.py', 'w.pth', '--to', 'timm'],
    'fit-teacher': ['--images', '.', '--model', 'resnet18', '--out', 't.safetensors'],
    'label': ['c.py'],
    'calibrate': ['store', '--out', 'new', '--quantiles', '0', '0', '1'],
    'mine': ['c.py', '--images', '.', '--out', 'list.txt'],
    'search': ['c.py'],
    'verify': ['store'],
    'convert': ['to-official', 'store', '--out', 'new'],
    'quickstart': [],
}


@pytest.mark.parametrize('command', [*RUNS, 'list methods', 'list teachers', 'list students'])
def test_a_missing_package_is_one_message_with_the_command_that_installs_it(bare, command):
    code, out, err = bare(*command.split(), *RUNS.get(command, []))
    assert code == 2 and not out
    assert err.startswith('error: ') and 'Traceback' not in err
    assert re.search(r'pip install "\S+"', err)


def test_every_command_is_tried_without_packages():
    assert set(COMMANDS) == {*RUNS, 'list', 'doctor'}


def test_doctor_says_what_is_missing(bare):
    code, out, err = bare('doctor')
    assert code == 1 and not err
    assert 'torch' in out and 'pip install "vfdistill[classification]"' in out
