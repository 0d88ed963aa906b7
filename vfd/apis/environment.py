"""The environment that ``vfd doctor`` reports: Python, packages and versions, mmcv's operators, devices."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from vfd import compat
from vfd.apis.places import place
from vfd.compat.packages import OTHERS, PACKAGES, missing_package

OLDEST_PYTHON = (3, 10)
NEEDED = ('torch', 'torchvision', 'timm', 'mmengine', 'mmcv')  # by every command that builds a network
Line = tuple[str, str, str | None]  # subject, what was found, what to mend


def environment() -> Iterator[Line]:
    """Describe Python, packages and devices, and name what to mend."""
    yield _python()
    versions = compat.status()
    tested = _tested()
    for module, version in versions.items():
        if module in PACKAGES:
            yield module, *_package(module, version, tested)
    for module in OTHERS:
        if OTHERS[module] in _runtime() and importlib.util.find_spec(module) is None:
            yield module, 'not installed', _command(module)
    yield from _operators()
    yield from _devices()


def _python() -> Line:
    found = '.'.join(map(str, sys.version_info[:3]))
    needed = '.'.join(map(str, OLDEST_PYTHON))
    mend = None if sys.version_info >= OLDEST_PYTHON else f'use Python {needed} or newer'
    return 'python', found, mend


def _package(module: str, version: str, tested: dict[str, str]) -> tuple[str, str | None]:
    if version == 'not installed':
        if module in NEEDED:
            return version, _command(module)
        return f'{version}; for configs that need it: {_command(module)}', None
    reference = next((tested[name] for name in PACKAGES[module].distributions if name in tested), None)
    number = re.match(r'[\w.]+', version)
    same = reference is None or (number is not None and number[0] == reference)
    wanted = _outside(PACKAGES[module].distributions, number[0] if number else '')
    mend = f'vfd needs {wanted}: pip install "{wanted}"' if wanted else None
    return version + ('' if same else f' (tested: {reference})'), mend


def _command(module: str) -> str:
    """Return the line of the message with the install command of a module."""
    return next(line.strip() for line in str(missing_package(module)).splitlines() if 'pip install' in line)


def _tested() -> dict[str, str]:
    """Return distribution -> version of ``requirements/constraints.txt``."""
    return dict(line.split('==') for line in _lines('constraints'))


def _runtime() -> list[str]:
    return [re.split(r'[<>=]', line)[0] for line in _lines('runtime')]


def _lines(name: str) -> list[str]:
    text = (place('requirements') / f'{name}.txt').read_text(encoding='utf-8')
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith('#')]


def _outside(distributions: tuple[str, ...], version: str) -> str | None:
    """Return the requirement of vfd that an installed version does not meet."""
    if importlib.util.find_spec('packaging') is None:
        return None
    from packaging.requirements import Requirement

    for line in (*_lines('runtime'), *_lines('mminstall')):
        requirement = Requirement(line)
        if requirement.name == distributions[0] and not requirement.specifier.contains(
            version, prereleases=True
        ):
            return line
    return None


def _operators() -> Iterator[Line]:
    """Check that mmcv's compiled operators load; the stand-in needs no check."""
    if importlib.util.find_spec('torch') is None or not compat.compiled_available():
        return
    try:
        importlib.import_module('mmcv._ext')
        yield 'mmcv operators', 'compiled, and they load', None
    except ImportError as error:
        text = ' '.join(str(error).split())
        mend = 'build mmcv again for this torch, or take the stand-in: pip uninstall mmcv && pip install mmcv-lite'
        yield 'mmcv operators', f'compiled, but they do not load: {text}', mend


def _devices() -> Iterator[Line]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    yield 'CPU', f'{cores} cores', None
    if importlib.util.find_spec('torch') is None:
        return
    import torch

    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield f'cuda:{number}', f'{about.name}, {about.total_memory / 2**30:.0f} GiB', None
    if not torch.cuda.is_available():
        driver = Path('/proc/driver/nvidia/version').exists()
        mend = None
        if driver:
            mend = 'torch finds no GPU although there is a driver: install a CUDA build of torch that fits it'
        yield (
            'GPU',
            'a driver, but none that torch can use' if driver else 'none: training runs on the CPU',
            mend,
        )
