"""What holds for every test."""

from collections.abc import Iterator

import pytest
import torch
from mmengine.registry import DefaultScope

from vfd import compat

compat.install()  # before a test module imports an OpenMMLab package

# Tiny networks lose more to the hand-over between threads than they gain.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_scope_left_behind() -> Iterator[None]:
    """A Runner sets the scope in which every later test would look up its types."""
    yield
    DefaultScope._instance_dict.clear()
