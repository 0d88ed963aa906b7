"""Which packages are installed, in which version, and the command that installs a missing one.

Nothing here imports the packages it reports on: the information comes from the import system and from the
installed metadata. Standard library only.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NamedTuple

from vfd.compat.finder import EXTENSION
from vfd.errors import MissingPackageError


class Package(NamedTuple):
    """Names of an importable module on the package index.

    Attributes:
        distributions: Names under which the module is published; the forks and the compiled builds included.
        extra: The extra of vfd that installs it; None when plain ``pip install vfdistill`` does.
    """

    distributions: tuple[str, ...]
    extra: str | None


PACKAGES = {
    'torch': Package(('torch',), None),
    'torchvision': Package(('torchvision',), None),
    'mmengine': Package(('mmengine', 'mmengine-lite', 'onedl-mmengine'), 'classification'),
    'mmcv': Package(('mmcv-lite', 'mmcv', 'mmcv-full', 'onedl-mmcv'), 'classification'),
    'mmpretrain': Package(('mmpretrain', 'onedl-mmpretrain'), 'classification'),
    'mmdet': Package(('mmdet', 'onedl-mmdetection'), 'detection'),
    'mmseg': Package(('mmsegmentation', 'onedl-mmsegmentation'), 'segmentation'),
    'timm': Package(('timm',), None),
    'open_clip': Package(('open_clip_torch',), 'openclip'),
    'transformers': Package(('transformers',), 'huggingface'),
    'onnx': Package(('onnx',), 'export'),
    'onnxscript': Package(('onnxscript',), 'export'),
    'onnxruntime': Package(('onnxruntime', 'onnxruntime-gpu'), 'export'),
}


DISTRIBUTION = 'vfdistill'  # the name `vfd` on the package index is another project's
# Other modules that vfd needs, and the distributions that hold them.
OTHERS = {
    'numpy': 'numpy', 'scipy': 'scipy', 'sklearn': 'scikit-learn', 'einops': 'einops', 'safetensors': 'safetensors',
    'cv2': 'opencv-python', 'pycocotools': 'pycocotools', 'PIL': 'pillow', 'matplotlib': 'matplotlib', 'rich': 'rich',
    'tensorboard': 'tensorboard', 'yaml': 'pyyaml', 'transformers': 'transformers', 'mlxtend': 'mlxtend',
    'ftfy': 'ftfy', 'regex': 'regex',
}  # fmt: skip


def require(package: str) -> None:
    """Check that an optional package can be imported, without importing it.

    Args:
        package: The importable name, such as ``'mmdet'`` or ``'open_clip'``.

    Raises:
        MissingPackageError: It is not installed; the text holds the pip command.
    """
    if _find(package) is not None:
        return
    raise missing_package(package) or _missing(package, package)


def missing_package(module: str) -> MissingPackageError | None:
    """Describe how to install a module that vfd needs; None for a module that is not listed.

    Args:
        module: The importable top-level name.
    """
    known = PACKAGES.get(module)
    if known is not None:
        return _missing(module, f'{DISTRIBUTION}[{known.extra}]' if known.extra else known.distributions[0])
    return _missing(module, OTHERS[module]) if module in OTHERS else None


def _missing(package: str, wanted: str) -> MissingPackageError:
    return MissingPackageError(
        f'the package "{package}" is needed here and is not installed. Install it with\n'
        f'    pip install "{wanted}"\n'
        'and add `-c requirements/constraints.txt`, from a clone of vfd, for the versions tested together.'
    )


def compiled_available() -> bool:
    """Return whether mmcv's compiled operators are on the path, so that the stand-in stays off."""
    mmcv = _find('mmcv')
    if mmcv is None or mmcv.submodule_search_locations is None:
        return False
    return PathFinder.find_spec(EXTENSION, mmcv.submodule_search_locations) is not None


def status() -> dict[str, str]:
    """Return the packages in use, for the table of a dry run.

    Returns:
        Module name -> version, with the distribution's name when it is not the first one in :data:`PACKAGES` (a
        fork), with the kind of operators for mmcv, and ``'not installed'`` for what is absent.
    """
    table = {'python': platform.python_version()}
    table.update({module: _version(module) for module in PACKAGES})
    if table['mmcv'] != 'not installed':
        table['mmcv'] += ', compiled operators' if compiled_available() else ', stand-in operators'
    return table


def _find(module: str) -> ModuleSpec | None:
    """Return the specification of a top-level module, or None."""
    assert '.' not in module, f'a top-level module is expected, got {module}'
    return importlib.util.find_spec(module)


def _version(module: str) -> str:
    """Return the version of the distribution beside the module that an import would load."""
    spec = _find(module)
    if spec is None or spec.origin is None:
        return 'not installed'
    names = PACKAGES[module].distributions
    site_packages = str(Path(spec.origin).parent.parent)
    # Several distributions can provide one module (an overlay of the forks, say); the folder decides.
    for name in names:
        for found in importlib.metadata.distributions(name=name, path=[site_packages]):
            return found.version if name == names[0] else f'{found.version} ({name})'
    return 'unknown version'
