"""The Python API. Importing it is light: what is used is imported at the first use.

from vfd.apis import train, test, export
runner = train('configs/quickstart/...py')
"""

from importlib import import_module
from typing import Any

_HOME = {
    'train': 'training',
    'test': 'training',
    'export': 'exporting',
    'ImageClassificationInferencer': 'inference',
    'ZeroShotSegmentationInferencer': 'zero_shot',
    'load_config': 'config',
    'baseline_config': 'baseline',
}


def __getattr__(name: str) -> Any:
    """Import an exported name from the module that defines it."""
    if name in _HOME:
        return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
