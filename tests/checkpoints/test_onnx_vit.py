"""A transformer in DINOv2's layout comes out of an ONNX graph as the exporter left it."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from vfd.checkpoints.onnx_vit import read_onnx_dinov2
from vfd.errors import UserError

onnx = pytest.importorskip('onnx')
DEPTH, WIDTH = 2, 24


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(
        'vit_small_patch14_dinov2', num_classes=0, img_size=56, embed_dim=WIDTH, depth=DEPTH, num_heads=2
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.eval()


def write(state: dict[str, Tensor], path, prefix: str = 'backbone.') -> None:
    """The tensors as an exporter of Hugging Face's ``Dinov2`` leaves them; no arithmetic, which nobody reads."""
    values, nodes, count = {}, [], 0

    def anonymous(array: np.ndarray) -> str:
        nonlocal count
        count += 1
        values[f'onnx::Constant_{count}'] = array
        return f'onnx::Constant_{count}'

    def linear(name: str, weight: np.ndarray) -> None:
        layer, _, part = name.removeprefix('encoder.layer.').partition('.')
        node = f'/{prefix.replace(".", "/")}encoder/layer.{layer}/{part.replace(".", "/")}'
        nodes.append(
            onnx.helper.make_node(
                'MatMul', ['x', anonymous(weight.T.copy())], [f'y{count}'], name=f'{node}/MatMul'
            )
        )

    arrays = {name: value.numpy() for name, value in state.items()}
    values[f'{prefix}embeddings.cls_token'] = arrays['cls_token']
    for part in ('weight', 'bias'):
        values[f'{prefix}embeddings.patch_embeddings.projection.{part}'] = arrays[f'patch_embed.proj.{part}']
        values[f'{prefix}layernorm.{part}'] = arrays[f'norm.{part}']
    anonymous(arrays['pos_embed'][:, :1])
    anonymous(arrays['pos_embed'][:, 1:])
    for k in range(DEPTH):
        ours, theirs = f'blocks.{k}.', f'encoder.layer.{k}.'
        for kind in ('weight', 'bias'):
            for part, array in zip(
                ('query', 'key', 'value'), np.split(arrays[f'{ours}attn.qkv.{kind}'], 3), strict=True
            ):
                name = f'{theirs}attention.attention.{part}'
                if kind == 'weight':
                    linear(name, array)
                else:
                    values[f'{prefix}{name}.bias'] = array
            for old, new in (('attention.output.dense', 'attn.proj'), ('mlp.fc1',) * 2, ('mlp.fc2',) * 2):
                if kind == 'weight':
                    linear(theirs + old, arrays[f'{ours}{new}.weight'])
                else:
                    values[f'{prefix}{theirs}{old}.bias'] = arrays[f'{ours}{new}.bias']
            for norm in ('norm1', 'norm2'):
                values[f'{prefix}{theirs}{norm}.{kind}'] = arrays[f'{ours}{norm}.{kind}']
        for scale in (1, 2):
            values[f'{prefix}{theirs}layer_scale{scale}.lambda1'] = arrays[f'{ours}ls{scale}.gamma']
    values['decoder.weight'] = np.ones((2, 2), np.float32)  # something else in the same graph
    graph = onnx.helper.make_graph(
        nodes,
        'vit',
        [onnx.helper.make_tensor_value_info('x', onnx.TensorProto.FLOAT, None)],
        [],
        [onnx.numpy_helper.from_array(array, name) for name, array in values.items()],
    )
    onnx.save(onnx.helper.make_model(graph), str(path))


@pytest.mark.parametrize('prefix', ['backbone.', ''])
def test_every_tensor_comes_back(network, tmp_path, prefix):
    state = network.state_dict()
    write(state, tmp_path / 'vit.onnx', prefix)
    read = read_onnx_dinov2(tmp_path / 'vit.onnx')
    assert set(read) == set(state)
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_another_graph_is_refused(network, tmp_path):
    graph = onnx.helper.make_graph([], 'empty', [], [], [onnx.numpy_helper.from_array(np.ones(3), 'weight')])
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / 'other.onnx'))
    with pytest.raises(UserError, match='DINOv2'):
        read_onnx_dinov2(tmp_path / 'other.onnx')
