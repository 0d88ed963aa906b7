"""Packaging of vfd as `vfdistill`. Versions proven to work together: requirements/constraints.txt.

A wheel holds configs (with metafiles), tools and examples under `vfd/.mim`, as OpenMMLab packages do; an editable
installation uses those of the repository.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
FOLDERS = ('configs', 'tools', 'examples', 'requirements')


class BuildWithFolders(build_py):
    """Copy the folders beside the package into it."""

    def run(self) -> None:
        """Build the package, then copy."""
        super().run()
        if not self.editable_mode:
            for name in FOLDERS:
                target = Path(self.build_lib, 'vfd/.mim', name)
                shutil.rmtree(target, ignore_errors=True)  # what an earlier build left
                shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns('__pycache__', '.*'))


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
    name='vfdistill',
    version=re.search(r"__version__ = '(.+?)'", (ROOT / 'vfd/__init__.py').read_text()).group(1),
    description='Distil vision foundation models into small backbones, on the OpenMMLab runners',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['vfd', 'vfd.*']),
    include_package_data=True,
    cmdclass={'build_py': BuildWithFolders},
    install_requires=requirements('runtime'),
    extras_require=extras,
    entry_points={'console_scripts': ['vfd = vfd.cli.main:main']},
)
