"""The harness of the golden tests: one test id for every case file, nothing left unread.

A golden module names its folder and one check for every kind of case::

    GOLDEN = 'ssld'
    CHECKS = {'losses': check_losses, 'lr_schedule': check_lr_schedule}

    def test_golden(golden_case):
        golden_case.check(CHECKS)

Cases are every ``*.npz`` and ``*.json`` of ``$VFD_GOLDEN/<folder>`` (default: the copy in ``tests/golden/data``).
The kind of a case is its file name up to a suffix (``losses_0`` is of the kind ``losses``), or the text under its
key ``kind``. A file of an unknown kind fails, and so does a folder without a case. Files that match a pattern of
the module's ``COMPANIONS`` (default ``*weights*``) are no cases: checks read them with ``golden_case.companion``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NO_CASES = 'no-case-file'
DEFAULT_ROOT = Path(__file__).parent / 'data'


class GoldenCase(Mapping[str, Any]):
    """The arrays (npz) or top-level entries (json) of one file; remembers which of them were read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix == '.json':
            content = json.loads(path.read_text(encoding='utf-8'))
            # a list of cases: its entries by their number
            self._values: dict[str, Any] = (
                content if isinstance(content, dict) else {str(i): entry for i, entry in enumerate(content)}
            )
        else:
            with np.load(path, allow_pickle=False) as file:
                self._values = {key: file[key] for key in file.files}
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        self._read.add(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:  # Mapping's own would count as a reading
        return key in self._values

    def under(self, prefix: str) -> dict[str, Any]:
        """All values whose key starts with ``prefix``, which is cut off."""
        return {key[len(prefix) :]: self[key] for key in self if key.startswith(prefix)}

    def companion(self, name: str) -> GoldenCase:
        """Another file of the same folder."""
        return GoldenCase(self.path.parent / name)

    def kind(self, known: Mapping[str, object]) -> str | None:
        if 'kind' in self:
            return str(self['kind'])
        fitting = [kind for kind in known if self.path.stem == kind or self.path.stem.startswith(f'{kind}_')]
        return max(fitting, key=len, default=None)

    def check(self, checks: Mapping[str, Callable[[GoldenCase], None]]) -> None:
        """Run the check of this case's kind, then see that it left nothing out."""
        kind = self.kind(checks)
        assert kind in checks, f'{self.path} is of no known kind; known: {sorted(checks)}'
        checks[kind](self)
        unread = sorted(set(self._values) - self._read)
        assert not unread, f'{self.path}: the check never read {unread}'


def case_files(folder: Path, companions: tuple[str, ...]) -> list[Path]:
    files = sorted(path for path in folder.glob('*') if path.suffix in ('.npz', '.json'))
    return [path for path in files if not any(path.match(pattern) for pattern in companions)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'golden_case' not in metafunc.fixturenames:
        return
    folder = Path(os.environ.get('VFD_GOLDEN') or DEFAULT_ROOT) / metafunc.module.GOLDEN
    files = case_files(folder, getattr(metafunc.module, 'COMPANIONS', ('*weights*',)))
    params = [pytest.param(path, id=path.name) for path in files]
    # An empty list would be reported as skipped; a missing folder has to fail.
    metafunc.parametrize('golden_case', params or [pytest.param(folder, id=NO_CASES)], indirect=True)


@pytest.fixture
def golden_case(request: pytest.FixtureRequest) -> GoldenCase:
    path: Path = request.param
    assert path.is_file(), f'no golden case (*.npz, *.json) in {path}'
    return GoldenCase(path)
