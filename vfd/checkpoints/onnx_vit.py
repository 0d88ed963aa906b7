"""A DINOv2-layout vision transformer out of an ONNX graph, under timm's names.

An exporter keeps the names of most tensors, but folds linear weights into anonymous, transposed constants; their
places follow from the names of the graph's nodes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vfd.errors import MissingPackageError, UserError

_PARTS = {
    'attention.output.dense': 'attn.proj',
    'layer_scale1.lambda1': 'ls1.gamma',
    'layer_scale2.lambda1': 'ls2.gamma',
    'mlp.fc1': 'mlp.fc1',
    'mlp.fc2': 'mlp.fc2',
    'norm1': 'norm1',
    'norm2': 'norm2',
}


def read_onnx_dinov2(path: str | Path) -> dict[str, Tensor]:
    """Read the backbone of an ONNX file whose nodes have Hugging Face's ``Dinov2`` names.

    Args:
        path: the file; other parts of the graph (a decoder, for example) are left out.

    Returns:
        Tensors for timm's ``vit_*_patch14_dinov2``.

    Raises:
        MissingPackageError: ``onnx`` is not installed.
        UserError: the graph is not such a network.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise MissingPackageError(
            'reading an ONNX file needs onnx; install with: pip install "vfdistill[export]"'
        ) from None
    graph: Any = onnx.load(str(path), load_external_data=False).graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    named = {name.removeprefix('backbone.'): array for name, array in values.items() if '::' not in name}
    for (
        node
    ) in graph.node:  # x @ W: the second input is the transposed weight of the layer the node is named after
        constant = next((name for name in node.input if name in values), None)
        match = re.search(r'(encoder/layer\..+)/MatMul$', node.name)
        if node.op_type == 'MatMul' and match and constant:
            named[match[1].replace('/', '.') + '.weight'] = values[constant].T
    anonymous = [array for name, array in values.items() if '::' in name and array.ndim == 3]
    try:
        return _to_timm(named, anonymous)
    except (KeyError, ValueError) as error:
        raise UserError(f'{path} holds no vision transformer in the layout of DINOv2: {error}') from None


def _to_timm(named: dict[str, np.ndarray], anonymous: list[np.ndarray]) -> dict[str, Tensor]:
    width = named['embeddings.cls_token'].shape[-1]
    tables = sorted(
        (a for a in anonymous if a.shape[0] == 1 and a.shape[2] == width), key=lambda a: a.shape[1]
    )
    first, patches = tables  # of the class token, of the patches
    state = {
        'cls_token': named['embeddings.cls_token'],
        'pos_embed': np.concatenate([first, patches], axis=1),
        'patch_embed.proj.weight': named['embeddings.patch_embeddings.projection.weight'],
        'patch_embed.proj.bias': named['embeddings.patch_embeddings.projection.bias'],
        'norm.weight': named['layernorm.weight'],
        'norm.bias': named['layernorm.bias'],
    }
    depth = 1 + max(int(m[1]) for name in named if (m := re.match(r'encoder\.layer\.(\d+)\.', name)))
    for k in range(depth):
        source, target = f'encoder.layer.{k}.', f'blocks.{k}.'
        for kind in ('weight', 'bias'):
            heads = [named[f'{source}attention.attention.{p}.{kind}'] for p in ('query', 'key', 'value')]
            state[f'{target}attn.qkv.{kind}'] = np.concatenate(heads)
            for old, new in _PARTS.items():
                if not old.startswith('layer_scale'):
                    state[f'{target}{new}.{kind}'] = named[f'{source}{old}.{kind}']
        for old, new in _PARTS.items():
            if old.startswith('layer_scale'):
                state[target + new] = named[source + old]
    return {name: torch.from_numpy(np.ascontiguousarray(array).copy()) for name, array in state.items()}
