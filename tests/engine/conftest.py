import engine_toy
import pytest


@pytest.fixture(scope='session')
def toy():
    """The tiny network, data set and run."""
    return engine_toy
