import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def toy():
    """The module beside this file (test folders are no packages, so it cannot be imported by name)."""
    if 'engine_toy' not in sys.modules:
        spec = importlib.util.spec_from_file_location('engine_toy', Path(__file__).with_name('engine_toy.py'))
        sys.modules['engine_toy'] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules['engine_toy'])
    return sys.modules['engine_toy']
