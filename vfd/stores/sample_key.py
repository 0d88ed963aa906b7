"""The key of a training sample, used by stores and in reports."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from vfd.errors import UserError

OWN = 'sample_key'  # of a data set whose samples are no files, or have names of their own
PATHS = ('img_path', 'path')


def sample_key(sample: Any, root: str | PurePath = '') -> str:
    """Return the key of a sample: its own, else its path relative to the root.

    Symbolic links are not resolved: the key is what the data set calls the file, wherever that lies.

    Args:
        sample: a data sample of mmengine, or what a data set's ``get_data_info`` gives. ``sample_key`` is taken where
            the data set sets one, else ``img_path`` or ``path``.
        root: ``data_root`` of the data set; a path outside of it stays as it is. Empty takes the path as it is.

    Raises:
        UserError: the sample has neither a key nor a path.
    """
    key = find_key(sample, root)
    if key is None:
        raise UserError(
            f'a sample has neither "{OWN}" nor a path ({", ".join(PATHS)}): let the data set set '
            f'info["{OWN}"] to a name that no other sample has, and let the packing transform hand it on (meta_keys)'
        )
    return key


def find_key(sample: Any, root: str | PurePath = '') -> str | None:
    """Return the key of a sample as :func:`sample_key` does, None for one without."""
    if not isinstance(sample, Mapping) and not hasattr(sample, 'get'):
        return None
    if (own := sample.get(OWN)) is not None:
        return str(own)
    path = next((str(value) for name in PATHS if (value := sample.get(name)) is not None), None)
    return path if path is None else relative_key(path, root)


def relative_key(path: str, root: str | PurePath) -> str:
    """Return a path relative to ``root``, by its name alone; ``path`` itself where it lies elsewhere."""
    if not str(root):
        return path
    inside, above = _absolute(path), _absolute(str(root)).rstrip('/') + '/'
    return inside.removeprefix(above) if inside.startswith(above) else path


def _absolute(path: str) -> str:
    """Return an absolute path without ``..``; addresses such as ``s3://bucket/a`` are absolute."""
    if '://' in path:
        return path
    return os.path.abspath(path).replace(os.sep, '/')  # noqa: PTH100  (resolve() would follow links)


def common_folder(paths: list[str]) -> str:
    """Return the folder in which all files lie, by their names alone; empty for none, and for addresses."""
    if not paths or any('://' in path for path in paths):
        return ''
    return os.path.commonpath([PurePath(_absolute(path)).parent for path in paths])
