"""Every config of the tree passes the check of keys and types."""

import pytest
from house_pages import ROOT

from vfd.apis.config import load_config

CONFIGS = sorted(path for path in ROOT.glob('configs/**/*.py') if '_base_' not in path.parts)


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize('path', CONFIGS, ids=[path.stem for path in CONFIGS])
def test_config_passes_the_check(path):
    config = load_config(path)
    assert config.model.type.startswith('vfd.')
