import importlib.util
import sys
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(scope='session')
def toy():
    """The module beside this file (test folders are no packages, so it cannot be imported by name)."""
    if 'engine_toy' not in sys.modules:
        spec = importlib.util.spec_from_file_location('engine_toy', Path(__file__).with_name('engine_toy.py'))
        sys.modules['engine_toy'] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules['engine_toy'])
    return sys.modules['engine_toy']


@pytest.fixture(autouse=True)
def no_scope_left_behind():
    """A Runner sets the scope in which every later test would look up its types."""
    yield
    DefaultScope._instance_dict.clear()
