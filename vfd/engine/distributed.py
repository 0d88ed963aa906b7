"""Process groups: gloo where there is no GPU, and a group on the CPU for the bookkeeping of a run."""

from __future__ import annotations

import datetime
import os
import subprocess
from typing import Any

import torch
import torch.distributed as dist


def init_cpu_group(launcher: str, dist_cfg: dict) -> None:
    """Join the process group on a machine without GPU (mmengine's launchers ask CUDA for a device first).

    Args:
        launcher: ``pytorch`` (torchrun) or ``slurm``.
        dist_cfg: ``env_cfg.dist_cfg`` of the config; its ``timeout`` (seconds) is used, the backend is always gloo.
    """
    if launcher == 'slurm':
        _environment_from_slurm()
    options: dict[str, Any] = {}
    if 'timeout' in dist_cfg:
        options['timeout'] = datetime.timedelta(seconds=dist_cfg['timeout'])
    dist.init_process_group('gloo', **options)


def _environment_from_slurm() -> None:
    """Set what ``torch.distributed`` reads from Slurm's variables, where it is not set already."""
    env = os.environ
    if 'MASTER_ADDR' not in env:
        listed = subprocess.run(
            ['scontrol', 'show', 'hostnames', env['SLURM_NODELIST']],
            capture_output=True,
            text=True,
            check=True,
        )
        env['MASTER_ADDR'] = listed.stdout.split()[0]
    env.setdefault('MASTER_PORT', '29500')
    env.update(
        WORLD_SIZE=env['SLURM_NTASKS'], RANK=env['SLURM_PROCID'], LOCAL_RANK=env.get('SLURM_LOCALID', '0')
    )


def cpu_group() -> Any:
    """A group over all ranks whose messages do not pass through GPU memory; None outside distributed runs.

    Every rank has to call it.
    """
    if not dist.is_initialized():
        return None
    return dist.group.WORLD if dist.get_backend() == 'gloo' else dist.new_group(backend='gloo')


def gather_to_main(value: Any, group: Any) -> list | None:
    """The values of all ranks, in order of rank, on rank 0; None elsewhere."""
    if group is None:
        return [value]
    values: list | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, values, dst=0, group=group)
    return values


def any_rank(flag: bool, group: Any) -> bool:
    """Whether the flag is set on any rank."""
    if group is None:
        return flag
    tensor = torch.tensor(int(flag))
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=group)
    return bool(tensor)
