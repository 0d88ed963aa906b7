"""mmpretrain does not bring mmdet along, and its layer for mmdet is there once mmdet is."""

import subprocess
import sys

CODE = """
import sys
import vfd.registry
import mmpretrain.models
assert 'mmdet' not in sys.modules, 'mmdet was imported'
assert mmpretrain.models.utils.ResLayerExtraNorm is None
import mmdet.models
from mmdet.registry import MODELS
layer = mmpretrain.models.utils.ResLayerExtraNorm
assert layer is not None and MODELS.get('ResLayerExtraNorm') is layer
layer(depth=50, stage=3, norm_cfg=dict(type='BN'), style='caffe')
"""


def test_mmdet_is_imported_by_those_who_need_it():
    result = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_other_order():
    code = """
import vfd.registry
import mmdet.models, mmpretrain.models
from mmdet.registry import MODELS
assert MODELS.get('ResLayerExtraNorm') is mmpretrain.models.utils.ResLayerExtraNorm is not None
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
