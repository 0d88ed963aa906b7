"""Reading a config: OpenMMLab's format, with mistakes found before anything is built."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from vfd import compat
from vfd.apis.check import TOP_LEVEL_KEYS, check_config
from vfd.apis.places import find_config
from vfd.errors import MissingFileError, UserError, did_you_mean

_USUAL_VARIABLES = {'train_pipeline', 'val_pipeline', 'test_pipeline'}  # near "tta_pipeline", but no mistake


def load_config(path: str | Path, options: dict[str, Any] | None = None) -> Config:
    """Read a config, merge command-line options over it and check every key.

    Args:
        path: a ``.py``, ``.yaml`` or ``.json`` config of mmengine; ``configs/...`` that is not in the current folder is
            that of this installation.
        options: ``{'optim_wrapper.optimizer.lr': 0.1}``, as ``--cfg-options`` gives them.

    Raises:
        UserError: the file is not there or no config, an option does not fit, a key or type is unknown.
    """
    compat.install()  # bases such as 'mmdet::...' are looked up with what newer Pythons lack
    path = find_config(path)
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob('*.py')])
        raise MissingFileError(f'config {path} does not exist{near}')
    try:
        config = Config.fromfile(path)
    except SyntaxError as error:
        raise UserError(f'config {error.filename or path}, line {error.lineno}: {error.msg}') from None
    except (FileNotFoundError, NameError, KeyError, OSError, TypeError) as error:
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {error}') from None
    _check_top_level(config, path, options or {})
    if options:
        try:
            config.merge_from_dict(options)
        except (KeyError, TypeError, IndexError, AssertionError) as error:
            raise UserError(f'--cfg-options do not fit {path}: {error}') from None
    check_config(config)
    return config


def _check_top_level(config: Config, path: Path, options: dict[str, Any]) -> None:
    """Check for top-level names that neither the runner nor any config file reads.

    A config may hold variables of its own (``train_pipeline = [...]``), which some line reads. One that no line reads
    is a misspelt key when it is near a known one, which is an error; otherwise it is a leftover, and one warning
    lists them. Files of installed packages are not questioned.
    """
    assigned: dict[str, Path] = {}
    read: set[str] = set()
    for file in _own_files(path):
        tree = _parse(file)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                read.add(node.id)
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == '_base_'
            ):
                read.add(node.attr)
        assigned.update(dict.fromkeys(_assigned(tree), file))
    unread: dict[Path, list[str]] = {}
    for name in config:
        if name in TOP_LEVEL_KEYS or name in read or name not in assigned:
            continue
        hint = did_you_mean(name, TOP_LEVEL_KEYS, cutoff=0.8)
        if hint and name not in _USUAL_VARIABLES:
            raise UserError(
                f'config {assigned[name]}: nothing reads "{name}"{hint}. Remove it, or correct its name.'
            )
        unread.setdefault(assigned[name], []).append(name)
    if unread:
        listed = '; '.join(f'{", ".join(names)} ({file})' for file, names in unread.items())
        print_log(f'nothing reads these variables of the config: {listed}', 'current', logging.WARNING)
    for option in options:
        name = option.partition('.')[0]
        if name not in config and name not in TOP_LEVEL_KEYS:
            hint = did_you_mean(name, {*TOP_LEVEL_KEYS, *config})
            raise UserError(f'--cfg-options {option}=...: the config has no "{name}"{hint}')


def _parse(file: Path) -> ast.Module:
    """Parse a config; ``{{_base_.x}}`` reads as ``_base_.x``. Other formats have no names of their own."""
    if file.suffix != '.py':
        return ast.Module(body=[], type_ignores=[])
    return ast.parse(re.sub(r'\{\{\s*([\w.$:]+)\s*\}\}', r'((\1))', file.read_text()))


def _assigned(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        yield from (t.id for t in targets if isinstance(t, ast.Name) and not t.id.startswith('_'))


def _own_files(path: Path) -> Iterator[Path]:
    """Return the config and the bases it inherits from, but for those of installed packages (``mmdet::...``)."""
    yield path
    for base in _bases(_parse(path)):
        file = (path.parent / base).resolve()
        if '::' not in base and file.is_file():
            yield from _own_files(file)


def _bases(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == '_base_' for t in node.targets
        ):
            value = ast.literal_eval(node.value)
            yield from [value] if isinstance(value, str) else value
        elif isinstance(node, ast.With):  # with read_base(): from .base import *
            for item in node.body:
                if isinstance(item, ast.ImportFrom) and item.level:
                    folders = '../' * (item.level - 1)
                    yield f'{folders}{(item.module or "").replace(".", "/")}.py'
