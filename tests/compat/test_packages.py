"""Which packages are there, and what is said when one is not."""

import importlib.metadata

import pytest

from vfd import compat
from vfd.compat import packages
from vfd.errors import MissingPackageError


def test_installed_packages_pass():
    for package in ('torch', 'mmengine', 'mmdet', 'mmseg', 'mmpretrain', 'open_clip', 'transformers'):
        compat.require(package)


@pytest.mark.parametrize(
    ('package', 'command'),
    [
        ('mmpretrain', 'pip install "vfdistill[classification]"'),
        ('mmdet', 'pip install "vfdistill[detection]"'),
        ('mmseg', 'pip install "vfdistill[segmentation]"'),
        ('open_clip', 'pip install "vfdistill[openclip]"'),
        ('transformers', 'pip install "vfdistill[huggingface]"'),
        ('onnxruntime', 'pip install "vfdistill[export]"'),
        ('timm', 'pip install "timm"'),
        ('no_such_package', 'pip install "no_such_package"'),
    ],
)
def test_a_missing_package_names_its_command(monkeypatch, package, command):
    monkeypatch.setattr(packages, '_find', lambda module: None)
    with pytest.raises(MissingPackageError) as error:
        compat.require(package)
    assert package in str(error.value) and command in str(error.value)


def test_status_names_what_is_in_use():
    table = compat.status()
    for module in ('torch', 'torchvision', 'timm'):
        assert table[module] == importlib.metadata.version(module)
    operators = 'compiled' if compat.compiled_available() else 'stand-in'
    assert table['mmcv'].endswith(f'{operators} operators')
    assert {'python', 'mmengine', 'mmdet', 'mmseg', 'mmpretrain'} <= set(table)


def test_status_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(packages, '_find', lambda module: None)
    table = compat.status()
    assert table['mmcv'] == table['mmdet'] == 'not installed'
    assert not compat.compiled_available()


def test_status_of_a_fork(run_python, tmp_path):
    fake_package(tmp_path, 'mmdet', 'onedl_mmdetection', '3.5.1')
    fake_package(tmp_path, 'mmseg', None, None)
    script = "import vfd.compat; t = vfd.compat.status(); print(t['mmdet'], '|', t['mmseg'])"
    assert run_python(script).strip() == '3.5.1 (onedl-mmdetection) | unknown version'


def fake_package(folder, module, distribution, version):
    (folder / module).mkdir()
    (folder / module / '__init__.py').write_text('')
    if distribution:
        info = folder / f'{distribution}-{version}.dist-info'
        info.mkdir()
        name = distribution.replace('_', '-')
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
