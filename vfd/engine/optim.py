"""Optimizer constructors: which parameter learns how fast."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from vfd.errors import UserError
from vfd.registry import OPTIM_WRAPPER_CONSTRUCTORS

# Names that wrappers put before the name that the network itself gives to a parameter.
_WRAPPERS = ('module', 'student', 'model', 'backbone', 'timm_model')
_BLOCKS_PER_VALUE = 3  # MobileNetV3


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerwiseLrMultiplier(DefaultOptimWrapperConstructor):
    """Five learning-rate multipliers from the stem to the last stage; the head keeps the full rate.

    Fine-tuning good weights moves early layers little. Published lists for SSLD weights: ``[.1, .1, .2, .2, .3]``
    (ResNet-vd, classification), ``[.05, .05, .1, .1, .15]`` (ResNet-vd, detection) and ``[.25, .25, .5, .5, .75]``
    (MobileNetV3)::

        optim_wrapper = dict(
            constructor='vfd.LayerwiseLrMultiplier',
            paramwise_cfg=dict(lr_mult_list=[.1, .1, .2, .2, .3]),
            optimizer=dict(type='SGD', lr=0.01))

    Families (timm, mmpretrain and mmdet names; alone, in a classifier, or as the student of a distiller):

    - ResNet and its relatives with ``layer1`` ... ``layer4``: one value for the stem, one a stage.
    - MobileNetV3: one value for three blocks, the first one for the stem as well, the last one for everything after
      the fifteenth block. [ours]: timm's ``conv_head`` counts as head.

    Args:
        optim_wrapper_cfg: as in mmengine; the optimizer needs ``lr``.
        paramwise_cfg: ``lr_mult_list`` with five values, and any option of mmengine's default constructor.

    Raises:
        UserError: without a list of five values, or for a network of another family.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        values = self.paramwise_cfg.get('lr_mult_list')
        if not isinstance(values, (list, tuple)) or len(values) != 5 or any(value < 0 for value in values):
            raise UserError(
                f'LayerwiseLrMultiplier: lr_mult_list={values!r}, but five values >= 0 are needed. Write '
                'paramwise_cfg=dict(lr_mult_list=[.1, .1, .2, .2, .3]) in optim_wrapper.'
            )
        base_lr = self.optimizer_cfg.get('lr')
        if base_lr is None:
            raise UserError(
                'LayerwiseLrMultiplier: the optimizer has no `lr`; write optimizer=dict(..., lr=...).'
            )
        self.base_lr: float = base_lr
        self.lr_mult_list = [float(value) for value in values]

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add a group for every parameter, as mmengine does, and multiply its learning rate."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # mmengine recurses through this method; the whole list is complete in the outermost call
            return
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        value_of = _family([_bare(name) for name in names.values()])
        members: dict[int | None, list[tuple[str, int]]] = {}
        for group in params:
            (parameter,) = group['params']
            name = names[id(parameter)]
            value = value_of(_bare(name))
            if value is not None:
                group['lr'] = group.get('lr', self.base_lr) * self.lr_mult_list[value]
            members.setdefault(value, []).append((name, parameter.numel()))
        print_log(self._table(members), logger='current')

    def _table(self, members: dict[int | None, list[tuple[str, int]]]) -> str:
        lines = [
            'learning-rate multipliers:',
            f'{"multiplier":>10} {"tensors":>8} {"parameters":>12}  modules',
        ]
        for value in sorted(members, key=lambda value: (value is None, value)):
            multiplier = 1.0 if value is None else self.lr_mult_list[value]
            modules = dict.fromkeys(_module(name) for name, _ in members[value])
            size = sum(size for _, size in members[value])
            lines.append(f'{multiplier:>10g} {len(members[value]):>8} {size:>12,}  {", ".join(modules)}')
        return '\n'.join(lines)


def _bare(name: str) -> str:
    """The name inside the network: without the names of what is wrapped around it."""
    parts = name.split('.')
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts.pop(0)
    return '.'.join(parts)


def _module(name: str) -> str:
    """``blocks.2.0`` of ``student.model.blocks.2.0.conv_pw.weight``: short enough for a table."""
    match = re.match(r'(blocks|layers?)\.\d+\.\d+', _bare(name))
    return match[0] if match else _bare(name).split('.')[0]


def _family(names: Iterable[str]) -> Callable[[str], int | None]:
    """The function from a parameter's name to the index of its multiplier (None: head)."""
    names = list(names)
    layers = {int(match[1]) for name in names if (match := re.match(r'layer(\d+)\.', name))}
    if layers == {1, 2, 3, 4}:
        return _resnet
    if layers and min(layers) == 0 and max(layers) > 4:  # mmpretrain's MobileNetV3: layer0 is the stem
        blocks = {f'layer{layer}': layer - 1 for layer in sorted(layers) if layer > 0}
        return _mobilenet_v3(blocks, stem=('layer0',))
    if any(name.startswith('conv_stem.') for name in names):  # timm
        found = dict.fromkeys(match[0] for name in names if (match := re.match(r'blocks\.\d+\.\d+', name)))
        if found:
            return _mobilenet_v3(
                {block: index for index, block in enumerate(found)}, stem=('conv_stem', 'bn1')
            )
    shown = ', '.join(dict.fromkeys(name.split('.')[0] for name in names))
    raise UserError(
        f'LayerwiseLrMultiplier knows ResNet (stem, layer1 ... layer4) and MobileNetV3, but this network has: {shown}. '
        'Name its parts yourself, without this constructor: optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'
        "'stem': dict(lr_mult=.1), 'stages.0': dict(lr_mult=.1), ...}), ...)."
    )


def _resnet(name: str) -> int | None:
    if match := re.match(r'layer([1-4])\.', name):
        return int(match[1])
    return 0 if re.match(r'(stem|conv1|bn1)\.', name) else None


def _mobilenet_v3(blocks: dict[str, int], stem: tuple[str, ...]) -> Callable[[str], int | None]:
    def value_of(name: str) -> int | None:
        parts = name.split('.')
        if parts[0] in stem:
            return 0
        block = blocks.get(parts[0], blocks.get('.'.join(parts[:3])))
        return None if block is None else min(block // _BLOCKS_PER_VALUE, 4)

    return value_of
