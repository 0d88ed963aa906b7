"""A command imports the OpenMMLab packages that its config needs, and no other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import vfd
from vfd.errors import MissingPackageError
from vfd.registry import DATASETS, MODELS, ON_DEMAND, compat

ROOT = Path(__file__).parents[2]
PACKAGES = ('mmpretrain', 'mmdet', 'mmseg')
TRAIN = f"""
import json, sys
from vfd.cli.main import main
code = main(['train', *sys.argv[1:], '--dry-run', '--work-dir', 'unused'])
print(json.dumps([code, [name for name in {PACKAGES} if name in sys.modules]]))
"""
# A masked autoencoder needs types of mmengine, mmcv and vfd only.
LIGHT = """
custom_imports = dict(imports=['pack_for_test'])
model = dict(
    type='vfd.MAE',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean=[120.] * 3, std=[60.] * 3, bgr_to_rgb=True),
    student=dict(type='vfd.MaskedAutoencoder', img_size=32, patch_size=4, embed_dim=48, depth=2, num_heads=3,
                 decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=2))
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='vfd.ImageFolderDataset', data_root='data/folder/unlabelled', pipeline=[
        dict(type='vfd.LoadImage'), dict(type='Resize', scale=(32, 32)), dict(type='PackForTest')]))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
param_scheduler = dict(type='vfd.WarmupCosineByIter', by_epoch=True, convert_to_iter_based=True, warmup=0)
"""
PACK = """
import torch
from mmcv.transforms import BaseTransform, TRANSFORMS

@TRANSFORMS.register_module()
class PackForTest(BaseTransform):
    def transform(self, results):
        return {'inputs': torch.from_numpy(results['img'].transpose(2, 0, 1).copy())}
"""


def imported(config, folder):
    result = subprocess.run(
        [sys.executable, '-c', TRAIN, str(config)], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    code, packages = json.loads(result.stdout.splitlines()[-1])
    assert code == 0, result.stderr
    return packages


def test_a_timm_classifier_imports_neither_detection_nor_segmentation(folder_data):
    tiny = ROOT / 'configs/ssld/ssld-stage1_tiny_1xb8-coslr-4e_folder.py'
    assert imported(tiny, folder_data) == ['mmpretrain']


def test_a_config_without_their_types_imports_none(folder_data):
    (folder_data / 'pack_for_test.py').write_text(PACK)
    (folder_data / 'light.py').write_text(LIGHT)
    assert imported('light.py', folder_data) == []


def test_importing_vfd_is_light():
    code = 'import sys, vfd, vfd.apis, vfd.cli.main; print("torch" in sys.modules, "mmengine" in sys.modules)'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ['False', 'False']


def test_types_on_demand_are_found_by_name_and_by_attribute():
    for registry in (MODELS, DATASETS):
        for name, (_, module) in ON_DEMAND[registry.name].items():
            kind = registry.get(f'vfd.{name}')
            assert kind.__module__ == module
            room = module.rpartition('.')[0]
            assert getattr(sys.modules[room], name) is kind
    with pytest.raises(AttributeError):
        vfd.backbones.Nothing  # noqa: B018


def test_a_type_on_demand_names_the_command_when_its_package_is_missing(monkeypatch):
    def require(package):
        raise MissingPackageError(package)

    monkeypatch.setattr(compat, 'require', require)
    monkeypatch.delitem(MODELS._module_dict, 'SegmentationProbe', raising=False)
    with pytest.raises(MissingPackageError, match='mmseg'):
        MODELS.get('vfd.SegmentationProbe')
