"""One reader for each weight-file format. None runs code from the file unless the caller trusts it."""

from __future__ import annotations

import argparse
import contextlib
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vfd import compat
from vfd.checkpoints.files import truncated
from vfd.errors import UserError

_NUMPY_MULTIARRAY = ('numpy.core.multiarray', 'numpy._core.multiarray')
_PICKLE_ALLOWED = {
    *((module, name) for module in _NUMPY_MULTIARRAY for name in ('_reconstruct', 'scalar')),
    ('numpy.core.numeric', '_frombuffer'),
    ('numpy._core.numeric', '_frombuffer'),
    ('numpy', 'ndarray'),
    ('numpy', 'dtype'),
    ('_codecs', 'encode'),  # how Python 2 and pickle protocol 2 spell bytes
    ('collections', 'OrderedDict'),
    *(('builtins', name) for name in ('dict', 'list', 'tuple', 'set')),
}


def read_torch(path: Path, *, trust: bool = False) -> Any:
    """Read a file of ``torch.save`` on the CPU (zip or older format).

    Besides tensors and plain Python values it allows `argparse.Namespace`, numpy arrays and scalars, and
    mmengine's `HistoryBuffer`: research code stores these beside the weights.

    Args:
        path: the file.
        trust: run whatever code the file holds. Only for files of your own.

    Returns:
        The object that was saved.

    Raises:
        UserError: the file holds other classes or functions (named in the text), or is damaged.
    """
    try:
        with _admitted(path):
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        if trust:
            return torch.load(path, map_location='cpu', weights_only=False)
        reason = str(error.__context__ or error)  # torch wraps it in advice to run the code
        found = re.search(r'GLOBAL ([\w.]+)|class ([\w.]+)|function ([\w.]+)', reason)
        if 'may not access the attribute' in reason:  # vfd.compat's stand-in for getattr
            raise _code_refused(path, 'builtins.getattr') from None
        if not found:
            raise truncated(path, _first_line(reason)) from error
        raise _code_refused(path, next(name for name in found.groups() if name)) from None
    except UserError:
        raise
    except Exception as error:  # damaged bytes make the parsers raise anything
        raise truncated(path, _first_line(error)) from error


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file: (tensors by name, the metadata of its header)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}, dict(handle.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise truncated(path, error) from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a numpy archive; arrays of Python objects are refused."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except ValueError as error:
        if 'allow_pickle' in str(error) or 'Object arrays' in str(error):
            raise UserError(
                f'{path} holds arrays of Python objects, which could run code when they are read. '
                'Save numbers only: numpy.savez(FILE, name=array, ...).'
            ) from None
        raise truncated(path, error) from error
    except Exception as error:  # damaged bytes make the parsers raise anything
        raise truncated(path, error) from error


def read_pickle(path: Path, *, trust: bool = False) -> Any:
    """Read a plain pickle of numpy arrays in plain containers, which is what a Paddle ``.pdparams`` file is.

    Args:
        path: the file.
        trust: run whatever code the file holds. Only for files of your own.

    Raises:
        UserError: the pickle names any other class or function (it is not called), or the file is damaged.
    """
    try:
        with path.open('rb') as stream:
            if trust:
                return pickle.load(stream, encoding='latin1')
            return _ArrayUnpickler(path, stream).load()
    except UserError:
        raise
    except Exception as error:  # damaged bytes make the parsers raise anything
        raise truncated(path, _first_line(error)) from error


class _ArrayUnpickler(pickle.Unpickler):
    """Allows numpy arrays and plain containers; every other name is refused before anything is called."""

    def __init__(self, path: Path, stream: Any):
        super().__init__(stream, encoding='latin1')
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up, if it is on the list."""
        if module == '__builtin__':
            module = 'builtins'
        if (module, name) not in _PICKLE_ALLOWED:
            raise _code_refused(self.path, f'{module}.{name}')
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """Refuse persistent references: they point outside the file."""
        raise _code_refused(self.path, f'persistent reference {pid!r}')


@contextlib.contextmanager
def _admitted(path: Path) -> Iterator[None]:
    """Widen torch's own list of harmless names while one file is read."""
    if not hasattr(torch.serialization, 'safe_globals'):  # torch < 2.5 allows tensors and plain values only
        yield
        return
    core = np._core if hasattr(np, '_core') else np.core
    names: list[Any] = [argparse.Namespace, np.ndarray, np.dtype]
    names += [type(np.dtype(code)) for code in ('f8', 'f4', 'f2', 'i8', 'i4', 'i2', 'i1', 'u4', 'u1', 'b1')]
    for module in _NUMPY_MULTIARRAY:  # numpy 1 and numpy 2 write different module names
        names += [(core.multiarray._reconstruct, f'{module}._reconstruct')]
        names += [(core.multiarray.scalar, f'{module}.scalar')]
    if _mentions(path, b'mmengine'):
        compat.install()  # declares what mmengine's checkpoints hold
    # Leaving the context takes its names off torch's list: not those that others declared for the whole process.
    declared = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals([name for name in names if name not in declared]):
        yield


def _mentions(path: Path, word: bytes) -> bool:
    """Return whether the pickle inside a zip-format torch file contains ``word``."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(n.endswith('data.pkl') and word in archive.read(n) for n in archive.namelist())


def _code_refused(path: Path, name: str) -> UserError:
    return UserError(
        f'{path} is a pickle that refers to "{name}"; reading it could run code, so it was not read. '
        'Ask for the weights as .safetensors, or convert the file where you trust it: '
        'torch.save({"state_dict": model.state_dict()}, FILE). '
        'If you know who wrote it, pass trust=True and the code in it will run.'
    )


def _first_line(reason: object) -> str:
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0]
