"""Every page: its commands parse, its config parts pass the config check, its imports and paths exist."""

import argparse
import ast
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
from house_pages import NAMES, PAGES, ROOT, blocks, commands, is_config

from vfd.cli.main import main

every_page = pytest.mark.parametrize('page', PAGES, ids=NAMES)

# Commands of other programs, which change the environment or show something on screen.
OTHERS = re.compile(
    r'(\S*/)?pip |python3 -m venv |tar |MMCV_WITH_OPS=1 |tensorboard |\.venv/bin/pre-commit |'
    r'(PYTHONPATH=\S+ )?python -m pytest |python -c '
)
# Files that a reader makes, or that a command makes for him.
MADE = re.compile(
    r'(work_dirs|data|checkpoints|lists|site|export)/|configs/mine\.py$|tests/golden/data/NAME|.*(NAME|<|\*)'
)
PATH = re.compile(r'(?:vfd|examples|configs|tools|tests|docs|requirements|benchmarks|demo|\.ci)/[\w./*<>-]+')
TINY = ROOT / 'configs/ssld/ssld-stage1_tiny_1xb8-coslr-4e_folder.py'


def parsed(work: Callable[[], object], monkeypatch) -> None:
    """Do ``work`` up to where the command's own parser has accepted its arguments."""

    class Parsed(Exception):
        pass

    original = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, *args, **kwargs):
        original(parser, *args, **kwargs)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_args', parse_and_stop)
        with pytest.raises(Parsed):
            work()


def parse_script(script: str, arguments: list[str], monkeypatch) -> None:
    """Parse by the script's own parser."""
    monkeypatch.setattr(sys, 'argv', [script, *arguments])
    parsed(lambda: runpy.run_path(str(ROOT / script), run_name='__main__'), monkeypatch)


@every_page
def test_commands_parse(page, monkeypatch):
    for command in commands(page):
        if OTHERS.match(command):
            continue
        words = [word for word in shlex.split(command) if not re.match(r'[A-Z0-9_]+=', word)]
        program, *arguments = words
        if program.endswith('python'):
            program, *arguments = arguments
        if program == 'make':
            done = subprocess.run(['make', '-n', *arguments], cwd=ROOT, capture_output=True, check=False)
            assert done.returncode == 0, command
        elif program == 'vfd':
            parsed(partial(main, arguments), monkeypatch)
        elif program == 'tools/dist_train.sh':
            assert arguments[1].isdigit()
            arguments = [arguments[0], '--launcher', 'pytorch', *arguments[2:]]
            parsed(partial(main, ['train', *arguments]), monkeypatch)
        elif program == 'tools/slurm_train.sh':
            arguments = [arguments[2], '--launcher', 'slurm', *arguments[3:]]
            parsed(partial(main, ['train', *arguments]), monkeypatch)
        elif program.startswith(('tools/', 'demo/', 'benchmarks/')):
            parse_script(program, arguments, monkeypatch)
        else:
            pytest.fail(f'{page.name}: nothing tells whether this works: {command}')


@every_page
def test_config_blocks_pass_the_config_check(page, tmp_path):
    """A whole config as it is (its bases come from ``configs``); a part of one on top of a small config."""
    from vfd.apis.config import load_config

    (tmp_path / '_base_').symlink_to(ROOT / 'configs/_base_')
    for number, block in enumerate(filter(is_config, blocks(page, 'python'))):
        file = tmp_path / f'block{number}.py'
        whole_model = re.sub(
            r'^model = dict\(\s*type=', 'model = dict(_delete_=True, type=', block, flags=re.MULTILINE
        )
        file.write_text(block if '_base_ =' in block else f'_base_ = {str(TINY)!r}\n{whole_model}')
        load_config(file)


@every_page
def test_python_blocks_import_what_exists(page):
    for block in blocks(page, 'python'):
        if not is_config(block):
            tree = ast.parse(block)
            tree.body = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
            exec(compile(tree, page.name, 'exec'), {})


@every_page
def test_paths_and_links_exist(page):
    text = page.read_text()
    for link in re.findall(r'\]\((?!https?:|#)([^)#\s]+)', text):
        # pages that docs/hooks/site.py makes of other files of the repository
        made = {
            ROOT / 'docs/contributing.md': ROOT / 'CONTRIBUTING.md',
            ROOT / 'docs/changelog.md': ROOT / 'CHANGELOG.md',
        }
        file = (page.parent / link).resolve()
        if file.parent == ROOT / 'docs/methods':
            file = ROOT / 'vfd/methods' / file.stem / 'README.md'
        assert made.get(file, file).exists(), f'{page}: {link}'
    code = re.findall(r'`([^`\n]+)`', re.sub(r'^ *```.*?^ *```$', '', text, flags=re.MULTILINE | re.DOTALL))
    for mention in [*code, *commands(page)]:
        for path in re.findall(rf'(?<![\w./-]){PATH.pattern}', mention):
            if not MADE.match(path):
                assert (ROOT / path.rstrip('.')).exists(), f'{page}: {path}'


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / 'mkdocs.yml').read_text()
    for page in ROOT.glob('docs/**/*.md'):
        assert f'- {page.relative_to(ROOT / "docs").as_posix()}\n' in navigation, page
