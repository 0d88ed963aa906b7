"""safetensors files with metadata, as the timm, Hugging Face and plain targets write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors; tied ones are stored twice, because the format knows no sharing."""
    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
        path,
        {'format': 'pt'},
    )


def annotate_tensors(path: Path, text: str) -> None:
    """Add the certificate to a file's metadata, under ``vfd``."""
    with safe_open(path, framework='pt') as handle:
        metadata = dict(handle.metadata() or {})
    save_file(load_file(path), path, metadata | {'vfd': text})
