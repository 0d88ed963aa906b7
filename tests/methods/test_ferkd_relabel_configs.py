"""Relabelling configs of the tree: settings as published, teachers that timm publishes, networks that can be built."""

from pathlib import Path

import pytest
import timm
import torch

from vfd.apis.config import load_config
from vfd.registry import MODELS

FOLDER = Path(__file__).parents[2] / 'configs/ferkd'
FULL = sorted(FOLDER.glob('relabel_*_in1k.py'))


@pytest.mark.parametrize('path', FULL, ids=[path.stem for path in FULL])
def test_full_scale(path):
    model = load_config(path).model
    name, size = model.teacher.source.model_name, model.teacher.input_size
    assert name in timm.list_pretrained() and timm.get_pretrained_cfg(name).input_size[1] == size
    assert (model.crops, model.label_type, model.chunk) == (500, 'marginal_smoothing_k5', 50)
    assert tuple(model.scale) == (0.08, 0.936 if path.stem.startswith('relabel_efficientnet-l2-475') else 1.0)
    if model.scale[1] == 1.0:
        return  # the same but for the network, whose building takes seconds
    with torch.device('meta'):
        teacher = model.teacher.to_dict() | {'checkpoint': 'random'}
        labeller = MODELS.build({**model.to_dict(), 'teacher': teacher})
    assert labeller.classes == 1000 and labeller.sizes == [size] and labeller.chunks == 10
    form = labeller.form([])
    assert form.fields()['ids'] == ('uint16', (500, 5)) and form.fields()['values'] == ('float32', (500, 5))
