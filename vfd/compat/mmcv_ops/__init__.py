"""The stand-in for mmcv's compiled operators, built on torchvision and PyTorch; CPU and CUDA tensors alike.

mmcv's own Python (autograd functions, modules, registries) stays in use: only the kernels underneath are
replaced. The signatures, argument names included, are those with which mmcv 2.x calls its extension:
outputs and gradients are tensors that the caller made and that the kernel fills in place. An operator
without stand-in can be imported, and raises ``NotImplementedError`` when it is called.

bfloat16, for which torchvision has no kernels, is computed in float32 and rounded at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from vfd.compat.mmcv_ops.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from vfd.compat.mmcv_ops.focal_loss import sigmoid_focal_loss_backward, sigmoid_focal_loss_forward
from vfd.compat.mmcv_ops.info import get_compiler_version, get_compiling_cuda_version
from vfd.compat.mmcv_ops.msda import ms_deform_attn_backward, ms_deform_attn_forward
from vfd.compat.mmcv_ops.nms import nms, nms_match, softnms
from vfd.compat.mmcv_ops.roi_align import roi_align_backward, roi_align_forward

OPERATORS: tuple[Callable[..., Any], ...] = (
    nms,
    softnms,
    nms_match,
    roi_align_forward,
    roi_align_backward,
    sigmoid_focal_loss_forward,
    sigmoid_focal_loss_backward,
    deform_conv_forward,
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    modulated_deform_conv_forward,
    modulated_deform_conv_backward,
    ms_deform_attn_forward,
    ms_deform_attn_backward,
    get_compiler_version,
    get_compiling_cuda_version,
)


def fill(module: ModuleType) -> None:
    """Add the operators, and an explanation for every other name, to the module ``mmcv._ext``."""
    module.__doc__ = __doc__
    for operator in OPERATORS:
        setattr(module, operator.__name__, operator)
    module.__dict__['__getattr__'] = without_stand_in


def without_stand_in(name: str) -> Callable[..., NoReturn]:
    """Return the function that takes the place of an operator without stand-in.

    mmcv imports the names of all its operators when it is imported, so the error has to wait for the call.

    Raises:
        AttributeError: ``name`` is a special name, which no operator has.
    """
    if name.startswith('__'):
        raise AttributeError(f'the stand-in for mmcv._ext has no attribute {name!r}')

    def operator(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f'the operator "{name}" of mmcv has no stand-in in vfd: it needs mmcv with compiled operators. '
            'Install a prebuilt mmcv for your torch and CUDA in place of mmcv-lite, or compile one; '
            'docs/install/gpu-and-compiled-mmcv.md says how. vfd uses it as soon as it is there.'
        )

    operator.__name__ = name
    return operator
