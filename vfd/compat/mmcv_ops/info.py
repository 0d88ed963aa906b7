"""Build information of the operators for ``mmcv.utils.collect_env``."""

from __future__ import annotations


def get_compiler_version() -> str:
    """Return the compiler of the operators: none was used."""
    return 'none (stand-in of vfd)'


def get_compiling_cuda_version() -> str:
    """Return the CUDA version of the operators: none was used."""
    return 'none (stand-in of vfd)'
