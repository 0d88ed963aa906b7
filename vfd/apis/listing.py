"""Lists of methods, teachers, students and configs, as text.

Names of methods, teachers and students come from the registries, so a new one is listed without a change here.
Configs are described by their metafiles.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vfd.apis.places import place


def list_methods(pattern: str = '*') -> str:
    """Describe the methods: model type, and what it does.

    Args:
        pattern: of the type's name, such as ``G2SD*``.
    """
    from mmengine.model import BaseModel

    found = [cls for cls in _registered('vfd.methods') if issubclass(cls, BaseModel)]
    return _table(['model.type', 'what it does'], _described(found, pattern))


def list_teachers(pattern: str = '*') -> str:
    """Describe the teachers and the sources of their networks."""
    found = _registered('vfd.teachers')
    return _table(['model.teacher.type or .source.type', 'what it is'], _described(found, pattern))


def list_students(pattern: str = '*') -> str:
    """Describe the networks that can be students: our own, and those of the installed packages, counted.

    Args:
        pattern: of the type's name; with one, the names in the packages are listed too.
    """
    import timm

    rows = _described(_registered('vfd.backbones'), pattern)
    families = {'timm': timm.list_models()}
    for package, parts in (
        ('mmpretrain', ('classifiers', 'backbones')),
        ('mmdet', ('detectors', 'backbones')),
        ('mmseg', ('segmentors', 'backbones')),
    ):
        if find_spec(package):
            families[package] = [f'{package}.{name}' for name in _names_in(package, parts)]
    for package, names in families.items():
        if pattern == '*':
            rows.append((package, f'{len(names)} networks; give a pattern to list them'))
        rows += [(name, f'of {package}') for name in names if pattern != '*' and fnmatch(name, pattern)]
    return _table(['model.student.type or network', 'what it is'], rows)


def list_configs(pattern: str = '*') -> str:
    """Describe the configs by their metafiles: paper, networks, data, results.

    Args:
        pattern: of the path, such as ``*dmae*tiny*``; a word without wildcards is looked for anywhere in it.
    """
    folder = place('configs')
    wanted = pattern if any(c in pattern for c in '*?[') else f'*{pattern}*'
    groups: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    described = _metafiles(folder)
    for path in sorted(folder.rglob('*.py')):
        name = path.relative_to(folder.parent).as_posix()
        if '_base_' not in path.parts and fnmatch(name, wanted):
            own = described.get(
                path.parent.relative_to(folder.parent).as_posix(), (path.parent.name, '', '', '')
            )
            title, *columns = described.get(name, own)
            groups[title].append((name, *columns))
    blocks = [f'{title}\n{_table([], rows, indent="  ")}' for title, rows in groups.items()]
    note = [] if find_spec('yaml') else ['(the contents of the metafiles are left out: pip install pyyaml)']
    return '\n\n'.join([*blocks, f'in {folder}', *note])


def _metafiles(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return config, or folder of configs -> collection with its paper, networks, data, results."""
    if not find_spec('yaml'):
        return {}
    import yaml

    described: dict[str, tuple[str, ...]] = {}
    for file in folder.glob('*/metafile.yml'):
        content = yaml.safe_load(file.read_text(encoding='utf-8'))
        titles = {
            one['Name']: f'{one["Name"]}: {one["Paper"]["Title"]}, {one["Paper"]["URL"]}'
            for one in content['Collections']
        }
        described[f'{folder.name}/{file.parent.name}'] = (next(iter(titles.values())), '', '', '')
        for model in content['Models']:
            about = model.get('Metadata') or {}
            networks = [str(about[key]) for key in ('Student', 'Teacher') if key in about]
            described[model['Config']] = (
                titles[model['In Collection']],
                ' from '.join(networks),
                str(about.get('Training Data', '')),
                '; '.join(_result(result) for result in model.get('Results') or []),
            )
    return described


def _result(result: dict[str, Any]) -> str:
    metrics = dict(result['Metrics'])
    published = metrics.pop('Published by the authors', False)
    numbers = ', '.join(f'{name} {value}' for name, value in metrics.items())
    return f'{result["Dataset"]} {numbers}' + (' (published by the authors)' if published else '')


def _registered(package: str) -> list[type]:
    """Return the registered models that a package of vfd defines, by name."""
    from vfd.registry import MODELS

    MODELS.import_from_location()
    classes = {cls for cls in MODELS.module_dict.values() if inspect.isclass(cls)}
    return sorted(
        (cls for cls in classes if cls.__module__.startswith(f'{package}.')), key=lambda cls: cls.__name__
    )


def _names_in(package: str, parts: Iterable[str]) -> list[str]:
    """Return the types of an OpenMMLab package that are defined in the given subpackages."""
    from mmengine.registry import MODELS

    child = MODELS._get_root_registry()._search_child(package)
    if child is None:
        return []
    child.import_from_location()
    prefixes = tuple(f'{package}.models.{part}' for part in parts)
    return sorted(name for name, cls in child.module_dict.items() if cls.__module__.startswith(prefixes))


def _described(classes: Iterable[type], pattern: str) -> list[tuple[str, str]]:
    """Return type and first sentence of the docstring, without its markup."""
    markup = re.compile(r':\w+:`~?([^`]*)`|``')
    return [
        (
            f'vfd.{cls.__name__}',
            ' '.join(markup.sub(r'\1', inspect.getdoc(cls) or '').split('\n\n')[0].split()),
        )
        for cls in classes
        if fnmatch(cls.__name__, pattern) or fnmatch(f'vfd.{cls.__name__}', pattern)
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], indent: str = '') -> str:
    """Format columns side by side; nothing is cut."""
    lines = [list(head), *rows] if head else list(rows)
    if not rows:
        return f'{indent}nothing of that name'
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return '\n'.join(
        indent + '  '.join(f'{cell:<{width}}' for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
