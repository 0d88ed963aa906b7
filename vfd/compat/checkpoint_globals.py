"""Loading mmengine's own checkpoints with torch 2.6 and later.

``torch.load`` reads with ``weights_only=True`` there, and mmengine 0.10.7 does not declare the classes that
its checkpoints hold, so ``--resume`` and ``load_from`` fail::

    _pickle.UnpicklingError: Weights only load failed. ... Unsupported global: GLOBAL
    mmengine.logging.history_buffer.HistoryBuffer was not an allowed global by default.

The repair declares just these classes; ``torch.load`` itself stays as it is, and a pickle that holds
anything else is still refused. ``getattr``, which such a checkpoint also names, is replaced by a function
that returns the buffer's own statistics and nothing else.
"""

from __future__ import annotations

import pickle
from typing import Any

_STATISTICS = ('mean', 'min', 'max', 'current')
_NUMBER_TYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')


def repair() -> None:
    """Declare the classes of mmengine's checkpoints where torch requires it."""
    import torch

    if torch.__version__ < '2.6':  # TorchVersion compares as a version; older ones unpickle everything
        return
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    core = getattr(np, '_core', None) or np.core
    multiarray = core.multiarray
    allowed: dict[str, Any] = {
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        'builtins.getattr': statistic_of,
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
    }
    for number in _NUMBER_TYPES:
        kind = type(np.dtype(number))
        allowed[f'{kind.__module__}.{kind.__name__}'] = kind
    for package in ('numpy.core', 'numpy._core'):  # files written with NumPy 1 and with NumPy 2
        allowed[f'{package}.multiarray._reconstruct'] = multiarray._reconstruct
        allowed[f'{package}.multiarray.scalar'] = multiarray.scalar
    # By name: the forks' loader takes the bare objects off torch's list again after each file it reads.
    torch.serialization.add_safe_globals([(allowed[name], name) for name in allowed])


def statistic_of(cls: Any, name: str) -> Any:
    """Replace ``getattr`` in checkpoints: return a statistic of mmengine's ``HistoryBuffer``.

    Raises:
        pickle.UnpicklingError: Anything else is requested; ``torch.load`` passes it on.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    if cls is HistoryBuffer and name in _STATISTICS:
        return getattr(cls, name)
    raise pickle.UnpicklingError(f'a checkpoint may not access the attribute {name!r} of {cls!r}')
