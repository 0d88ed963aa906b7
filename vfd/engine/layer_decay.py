"""Layer-wise learning-rate decay of a vision transformer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from vfd.errors import UserError, did_you_mean
from vfd.registry import OPTIM_WRAPPER_CONSTRUCTORS

# Names that wrappers put before the name that the transformer itself gives to a parameter. `net` is ViTDet's;
# `0` is the student in a list of networks.
_WRAPPERS = ('module', 'student', 'model', 'backbone', 'net', 'timm_model', '0')
_EMBEDDINGS = ('cls_token', 'pos_embed', 'patch_embed')
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)  # _NormBase: batch and instance norm

# Words of `no_decay` that are right even where no parameter bears them: a model may lack the class token.
_KNOWN_WORDS = ('1d', 'bias', 'norm', 'pos_embed', 'cls_token')
_OPTIONS = ('layer_decay', 'no_decay')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecay(DefaultOptimWrapperConstructor):
    """Early layers of a pre-trained vision transformer learn slower, as MAE fine-tunes.

    Embeddings are layer 0, block i is layer i + 1, all else (norm, heads, pyramid, adapters) is the last layer,
    depth + 1. A parameter of layer i learns at ``lr * layer_decay ** (depth + 1 - i)``. Each pair of learning rate
    and weight decay is one group of the optimizer::

        optim_wrapper = dict(
            constructor='vfd.LayerDecay',
            paramwise_cfg=dict(layer_decay=0.75),
            optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05))

    The transformer may be the model itself, in a classifier, a detector's backbone, or the student of a distiller;
    its parameters bear timm's names. Frozen parameters are left out.

    Source: "Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377), section A.1 and the released code.

    Args:
        optim_wrapper_cfg: as in mmengine; the optimizer needs ``lr``.
        paramwise_cfg: ``layer_decay`` in (0, 1] and, optionally, ``no_decay``: what has no weight decay. Its words
            are ``1d`` (at most one dimension), ``bias`` (names that end so), ``norm`` (weight and bias of norm
            layers), or a tensor's own name such as ``pos_embed``. Default: ``('1d', 'bias', 'pos_embed',
            'cls_token')``, as published for classification.

    Raises:
        UserError: an option is missing, unknown or out of range; the model has no ``blocks.<i>``.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        for option in self.paramwise_cfg:
            if option not in _OPTIONS:
                raise UserError(
                    f'LayerDecay: paramwise_cfg has an unknown "{option}"{did_you_mean(option, _OPTIONS)}; '
                    f'it takes {" and ".join(_OPTIONS)}.'
                )
        layer_decay = self.paramwise_cfg.get('layer_decay')
        if not isinstance(layer_decay, (int, float)) or not 0 < layer_decay <= 1:
            raise UserError(
                f'LayerDecay: layer_decay={layer_decay!r}, but a number in (0, 1] is needed. Write '
                'paramwise_cfg=dict(layer_decay=0.75) in optim_wrapper.'
            )
        if self.base_lr is None:
            raise UserError('LayerDecay: the optimizer has no `lr`; write optimizer=dict(..., lr=...).')
        no_decay = self.paramwise_cfg.get('no_decay', ('1d', 'bias', 'pos_embed', 'cls_token'))
        if isinstance(no_decay, str):
            raise UserError(
                f'LayerDecay: no_decay={no_decay!r} is not a list; write no_decay=[{no_decay!r}].'
            )
        self.layer_decay: float = layer_decay
        self.no_decay: tuple[str, ...] = tuple(no_decay)

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add one group for every pair of learning rate and weight decay, in the order of the layers."""
        named = {name: value for name, value in module.named_parameters() if value.requires_grad}
        last = depth_of(named) + 1
        undecayed = self._undecayed(module, named)
        groups: dict[tuple[int, bool], list[str]] = {}
        for name in named:
            groups.setdefault((layer_id(name, last - 1), name not in undecayed), []).append(name)
        for (layer, decayed), names in sorted(groups.items()):
            scale = self.layer_decay ** (last - layer)
            group = {'params': [named[name] for name in names], 'lr': self.base_lr * scale}
            if not decayed:
                group['weight_decay'] = 0.0
            params.append(group)
        print_log(self._table(named, groups, last), logger='current')

    def _undecayed(self, module: nn.Module, named: Mapping[str, Tensor]) -> Collection[str]:
        leaves = {name: name.rpartition('.')[2] for name in named}
        for word in self.no_decay:
            if word not in _KNOWN_WORDS and word not in leaves.values():
                hint = did_you_mean(word, {*_KNOWN_WORDS, *leaves.values()})
                raise UserError(
                    f'LayerDecay: no_decay has "{word}", but the model has no trainable tensor of that name{hint}. '
                    'Other words are "1d", "bias" and "norm".'
                )
        of_norms = {
            f'{path}.{leaf}'.removeprefix('.')
            for path, part in module.named_modules()
            if isinstance(part, _NORMS)
            for leaf, _ in part.named_parameters(recurse=False)
        }
        return {
            name
            for name, value in named.items()
            if ('1d' in self.no_decay and value.ndim <= 1)
            or ('norm' in self.no_decay and name in of_norms)
            or leaves[name] in self.no_decay
        }

    def _table(
        self, named: Mapping[str, Tensor], groups: dict[tuple[int, bool], list[str]], last: int
    ) -> str:
        lines = [
            f'layer-wise learning rates, decay {self.layer_decay:g}:',
            f'{"layer":>6} {"factor":>10} {"tensors":>8} {"parameters":>12} {"undecayed":>10}',
        ]
        for layer in range(last + 1):
            decayed, undecayed = groups.get((layer, True), []), groups.get((layer, False), [])
            size = sum(named[name].numel() for name in [*decayed, *undecayed])
            factor = self.layer_decay ** (last - layer)
            count = len(decayed) + len(undecayed)
            lines.append(f'{layer:>6} {factor:>10.4g} {count:>8} {size:>12,} {len(undecayed):>10}')
        return '\n'.join(lines)


def layer_id(name: str, depth: int) -> int:
    """The layer that a parameter belongs to.

    Args:
        name: of the parameter; what wrappers put in front (``student.``, ``backbone.`` ...) is ignored.
        depth: number of the transformer's blocks.

    Returns:
        0 for the embeddings, i + 1 for block i (but for ViTDet's ``blocks.<i>.residual``), depth + 1 for all else.
    """
    parts = _bare(name)
    if parts[0] in _EMBEDDINGS:
        return 0
    block = _block(parts)
    return depth + 1 if block is None else block + 1


def depth_of(names: Iterable[str]) -> int:
    """The number of transformer blocks that parameters of these names make up.

    Raises:
        UserError: there is none.
    """
    bare = [_bare(name) for name in names]
    blocks = [block for parts in bare if (block := _block(parts)) is not None]
    if not blocks:
        shown = ', '.join(dict.fromkeys(parts[0] for parts in bare))
        raise UserError(
            'LayerDecay needs a vision transformer with parameters blocks.0 ..., as timm names them, but this model '
            f'has: {shown or "none that trains"}. For a network without blocks use another optimizer constructor.'
        )
    return max(blocks) + 1


def _bare(name: str) -> list[str]:
    """The parts of the name inside the network, without the names of what is wrapped around it."""
    parts = name.split('.')
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts.pop(0)
    return parts


def _block(parts: list[str]) -> int | None:
    # ViTDet's residual convolutions inside blocks are new layers, as heads are.
    match = re.match(r'blocks\.(\d+)\.(?!residual\.)', '.'.join(parts))
    return int(match[1]) if match else None
