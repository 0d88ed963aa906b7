"""Choice of the device."""

from __future__ import annotations

import os

import torch

from vfd.errors import UserError


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of a name; without one this process's GPU, or the CPU.

    Raises:
        UserError: this machine has no such device.
    """
    if name is None:
        local = int(os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', 0)))
        return torch.device(f'cuda:{local}' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UserError(f'device {name!r} cannot be used: {str(error).splitlines()[0]}') from error
    return device
