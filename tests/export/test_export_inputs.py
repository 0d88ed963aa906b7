"""Students that do not read images: what their config says of their inputs, and where they can leave to."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file
from torch import nn

from vfd.apis.check import check_config
from vfd.apis.exporting import export
from vfd.errors import MissingFileError, UserError
from vfd.export.example_inputs import example_inputs
from vfd.registry import MODELS


@MODELS.register_module(force=True)
class ToyVoxels(nn.Module):
    """A map seen from above (B, D, h, w) from voxels (B, C, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.conv(inputs).relu()


@MODELS.register_module(force=True)
class ToyPillars(ToyVoxels):
    """The same from points of pillars (P, n, 4) and their places (P, 2), as two arguments."""

    def forward(self, points, places):
        maps = points.new_zeros(8, 8, 4)
        maps = maps.index_put((places[:, 0], places[:, 1]), points.mean(1), accumulate=True)
        return self.conv(maps.permute(2, 0, 1)[None])


@MODELS.register_module(force=True)
class ToyNamed(ToyPillars):
    """The same from one dict."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return super().forward(inputs['points'], inputs['places'])


POINTS = {'shape': (20, 5, 4)}
PLACES = {'shape': (20, 2), 'dtype': 'int64', 'high': 8}
KINDS = {
    'ToyVoxels': {'shape': (2, 4, 8, 8)},
    'ToyPillars': [POINTS, PLACES],
    'ToyNamed': {'points': POINTS, 'places': PLACES},
}


def files(folder, kind, inputs=None):
    """A config and a checkpoint of a training without images, preprocessor and data set."""
    torch.manual_seed(0)
    model = MODELS.build({'type': f'vfd.{kind}'})
    state = {f'student.{name}': value for name, value in model.state_dict().items()}
    torch.save({'state_dict': state, 'meta': {}}, folder / 'student.pth')
    student = {'type': 'vfd.SSLDDistiller', 'student': {'type': f'vfd.{kind}'}, 'teacher': {'type': 'none'}}
    return Config({'model': student, 'example_inputs': inputs or KINDS[kind]}), folder / 'student.pth', model


@pytest.mark.parametrize(
    ('kind', 'target'),
    [
        *((kind, target) for kind in KINDS for target in ('safetensors', 'torchscript')),
        ('ToyVoxels', 'onnx'),
    ],
)
def test_student_without_images(tmp_path, kind, target):
    if target == 'onnx':
        pytest.importorskip('onnxruntime')
    config, checkpoint, _ = files(tmp_path, kind)
    certificate = export(config, checkpoint, target, tmp_path / 'out')
    assert certificate.max_error <= certificate.limit and certificate.images == ['example_inputs']
    written = json.loads((tmp_path / 'out' / target / 'certificate.json').read_text())
    assert 'mean' not in written['preprocessing'] and written['classes'] is None
    expected = {'ToyVoxels': {'inputs': [2, 4, 8, 8, 'float32']}}
    names = {'ToyPillars': ('input_0', 'input_1'), 'ToyNamed': ('points', 'places')}
    shapes = expected.get(kind) or dict(
        zip(names[kind], ([20, 5, 4, 'float32'], [20, 2, 'int64']), strict=True)
    )
    assert written['preprocessing']['inputs'] == shapes


def test_graph_answers_as_the_network_on_other_inputs(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    config, checkpoint, model = files(tmp_path, 'ToyNamed')
    certificate = export(config, checkpoint, 'onnx', tmp_path / 'out')
    session = onnxruntime.InferenceSession(certificate.artefact)
    inputs = example_inputs(KINDS['ToyNamed'], seed=7)
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        np.testing.assert_allclose(found, model(inputs), atol=1e-5)
    assert 'mean' not in session.get_modelmeta().custom_metadata_map


def test_inputs_from_a_file(tmp_path):
    voxels = torch.randn(3, 4, 6, 6)
    save_file({'voxels': voxels}, tmp_path / 'inputs.safetensors')
    assert example_inputs(str(tmp_path / 'inputs.safetensors')).equal(voxels)
    np.savez(
        tmp_path / 'inputs.npz', points=np.ones((2, 5, 4), np.float32), places=np.zeros((2, 2), np.int64)
    )
    assert list(example_inputs(str(tmp_path / 'inputs.npz'))) == ['points', 'places']
    config, checkpoint, _ = files(tmp_path, 'ToyVoxels', str(tmp_path / 'inputs.safetensors'))
    certificate = export(config, checkpoint, 'torchscript', tmp_path / 'out')
    assert certificate.input_shapes[0] == [3, 4, 6, 6]


def test_targets_of_images_and_wrong_descriptions_are_refused(tmp_path):
    config, checkpoint, _ = files(tmp_path, 'ToyVoxels')
    for target in ('timm', 'mmpretrain', 'mmdet'):
        with pytest.raises(UserError, match=f'{target}.*images.*safetensors'):
            export(config, checkpoint, target, tmp_path / 'out')
    with pytest.raises(UserError, match='--images'):
        export(config, checkpoint, 'onnx', tmp_path / 'out', images=tmp_path)
    with pytest.raises(UserError, match=r'example_inputs.*shape'):
        example_inputs({'size': (2, 2)})
    with pytest.raises(UserError, match='dtype="float33"'):
        example_inputs({'shape': (2, 2), 'dtype': 'float33'})
    with pytest.raises(MissingFileError, match=r'none\.npz'):
        example_inputs('none.npz')
    check_config(Config({'model': {'type': 'vfd.ToyVoxels'}, 'example_inputs': KINDS['ToyVoxels']}))
