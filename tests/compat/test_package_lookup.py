"""Finding configs of installed packages."""

import importlib.metadata
from pathlib import Path

import mmdet
import mmengine.utils
import mmseg
import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from vfd import compat
from vfd.compat import package_lookup


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'RetinaNet'),
        ('mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py', 'EncoderDecoder'),
        ('mmpretrain::resnet/resnet18_8xb32_in1k.py', 'ImageClassifier'),
    ],
)
def test_configs_of_packages(name, kind, tmp_path):
    assert get_config(name).model.type == kind
    child = tmp_path / 'child.py'
    child.write_text(f'_base_ = {name!r}\nmodel = dict(train_cfg=None)\n')
    inherited = Config.fromfile(child)
    assert inherited.model.type == kind and inherited.model.train_cfg is None


def test_look_up_by_distribution_and_by_module():
    folder = str(Path(mmdet.__file__).parent)
    for find in (package_lookup.get_installed_path, mmengine.utils.get_installed_path):
        assert find('mmdet') == folder
    assert package_lookup.get_installed_path('mmseg') == str(Path(mmseg.__file__).parent)
    assert package_lookup.is_installed('mmdet') and mmengine.utils.is_installed('mmdet')
    assert package_lookup.is_installed('opencv-python') and package_lookup.is_installed('yaml')
    assert not package_lookup.is_installed('no-such-package')
    assert package_lookup.package2module('opencv-python') == 'cv2'
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        package_lookup.get_installed_path('no-such-package')


def test_distribution_that_differs_from_its_module(monkeypatch):
    from mmengine.config.utils import MODULE2PACKAGE

    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    assert package_lookup.package2module('mmsegmentation') == 'mmseg'
    assert package_lookup.get_installed_path('mmsegmentation') == str(Path(mmseg.__file__).parent)


def test_fork_without_the_usual_distribution(monkeypatch):
    original = importlib.metadata.distribution

    def distribution(name):
        if name == 'mmsegmentation':
            raise importlib.metadata.PackageNotFoundError(name)
        return original(name)

    monkeypatch.setattr(importlib.metadata, 'distribution', distribution)
    monkeypatch.setattr(
        mmengine.utils.package_utils, 'call_command', lambda command: pytest.fail(str(command))
    )
    assert mmengine.utils.is_installed('mmsegmentation')
    assert get_config('mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py').model.type == 'EncoderDecoder'


def test_install_is_idempotent():
    before = mmengine.utils.get_installed_path, mmengine.utils.package_utils.is_installed
    compat.install()
    compat.install()
    assert (mmengine.utils.get_installed_path, mmengine.utils.package_utils.is_installed) == before
