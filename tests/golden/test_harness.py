"""The golden harness itself: it has to fail where a golden test that cannot fail would pass."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

_spec = importlib.util.spec_from_file_location('golden_harness', Path(__file__).with_name('conftest.py'))
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


@pytest.fixture
def folder(tmp_path) -> Path:
    np.savez(tmp_path / 'losses_0.npz', value=np.ones(2), extra=np.zeros(1))
    np.savez(tmp_path / 'model_weights.npz', w=np.ones(3))
    (tmp_path / 'renamed.json').write_text(json.dumps({'kind': 'plan', 'steps': 3}))
    (tmp_path / 'README.md').write_text('no case')
    return tmp_path


class Metafunc:
    """Records what would be parametrized."""

    fixturenames = ('golden_case',)
    module = SimpleNamespace(GOLDEN='method')

    def parametrize(self, name, params, indirect) -> None:
        self.params = params


def generated(monkeypatch, root: Path) -> list:
    monkeypatch.setenv('VFD_GOLDEN', str(root))
    metafunc = Metafunc()
    harness.pytest_generate_tests(metafunc)
    return [(param.id, param.values[0]) for param in metafunc.params]


def test_one_id_for_every_case_file(folder, monkeypatch, tmp_path_factory):
    root = tmp_path_factory.mktemp('root')
    (root / 'method').symlink_to(folder)
    ids = [name for name, _ in generated(monkeypatch, root)]
    assert ids == ['losses_0.npz', 'renamed.json']


def test_a_folder_without_a_case_fails(tmp_path, monkeypatch):
    ((name, path),) = generated(monkeypatch, tmp_path)
    assert name == harness.NO_CASES and not path.is_file()
    request = SimpleNamespace(param=path)
    with pytest.raises(AssertionError, match='no golden case'):
        harness.golden_case.__wrapped__(request)


def test_a_file_of_unknown_kind_fails(folder):
    case = harness.GoldenCase(folder / 'losses_0.npz')
    with pytest.raises(AssertionError, match='no known kind'):
        case.check({'loss': lambda case: None, 'lossesx': lambda case: None})


def test_an_unread_key_fails(folder):
    case = harness.GoldenCase(folder / 'losses_0.npz')
    with pytest.raises(AssertionError, match=r"never read \['extra'\]"):
        case.check({'losses': lambda case: case['value']})


def test_looking_for_a_key_is_no_reading(folder):
    case = harness.GoldenCase(folder / 'losses_0.npz')
    with pytest.raises(AssertionError, match='never read'):
        case.check({'losses': lambda case: [key in case for key in case]})


def test_kinds_come_from_the_name_or_from_the_file(folder):
    case = harness.GoldenCase(folder / 'losses_0.npz')
    assert case.kind({'losses': None, 'losses_0': None}) == 'losses_0'  # the longest that fits
    harness.GoldenCase(folder / 'renamed.json').check({'plan': lambda case: case['steps']})


def test_companions_are_read_by_the_cases_that_need_them(folder):
    companion = harness.GoldenCase(folder / 'losses_0.npz').companion('model_weights.npz')
    assert companion.under('')['w'].tolist() == [1, 1, 1]
