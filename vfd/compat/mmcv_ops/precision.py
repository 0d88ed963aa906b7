"""The number format that the kernels underneath can compute in."""

from __future__ import annotations

import torch
from torch import Tensor


def computable(tensor: Tensor) -> Tensor:
    """Return the tensor itself, or in float32 where it is bfloat16, which torchvision's kernels refuse."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
