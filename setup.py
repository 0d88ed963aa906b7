"""Packaging of vfd. Versions proven to work together: requirements/constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """The requirement lines of ``requirements/<name>.txt``, comments dropped."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def pick(*packages: str) -> list[str]:
    """The lines of mminstall.txt that install the named packages."""
    return [r for r in requirements('mminstall') if re.split(r'[<>=]', r)[0] in packages]


core = pick('mmengine', 'mmcv-lite')
extras = {
    'classification': core + pick('mmpretrain'),
    'detection': core + pick('mmdet'),
    'segmentation': core + pick('mmsegmentation', 'ftfy', 'regex'),
    'openclip': requirements('openclip'),
    'huggingface': requirements('huggingface'),
    'export': requirements('export'),
}
extras['all'] = sorted({line for group in extras.values() for line in group})

setup(
    name='vfd',
    version=re.search(r"__version__ = '(.+?)'", (ROOT / 'vfd/__init__.py').read_text()).group(1),
    description='Distil vision foundation models into small backbones, on the OpenMMLab runners',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['vfd', 'vfd.*']),
    include_package_data=True,
    install_requires=requirements('runtime'),
    extras_require=extras,
    entry_points={'console_scripts': ['vfd = vfd.apis.cli:main']},
)
